"""What notebooks teach with: the load level, predictions, and exercises that are checked."""

from overload_demo.course.exercise import check
from overload_demo.course.level import by_level
from overload_demo.course.predictions import Comparison, Prediction

__all__ = ["Comparison", "Prediction", "by_level", "check"]
