"""What notebooks teach with: the load level, predictions, exercises that are checked, and the concept inventory.

One variable, OVERLOAD_LEVEL, sets how heavy the load of every notebook is.
"""

import os
from enum import StrEnum
from typing import TypeVar

from overload_demo.course.exercise import check
from overload_demo.course.grading import broken_queues, grade
from overload_demo.course.inventory import Inventory
from overload_demo.course.prediction import Comparison, Prediction
from overload_demo.course.short_errors import shorten_errors
from overload_demo.errors import ConfigurationError

__all__ = ["Comparison", "Inventory", "Level", "Prediction", "broken_queues", "by_level", "check", "grade"]

Value = TypeVar("Value")


class Level(StrEnum):
    """How long a notebook keeps the machine busy: seconds, up to two minutes, or the whole 100,000 requests."""

    TEST = "test"
    QUICK = "quick"
    FULL = "full"


def by_level(test: Value, quick: Value, full: Value) -> Value:
    """Return the value for the level in OVERLOAD_LEVEL: ``test``, ``quick`` (default) or ``full``.

    Raises :class:`ConfigurationError` for another level.
    """
    level = os.environ.get("OVERLOAD_LEVEL") or Level.QUICK
    try:
        return {Level.TEST: test, Level.QUICK: quick, Level.FULL: full}[Level(level)]
    except ValueError:
        raise ConfigurationError(f"OVERLOAD_LEVEL must be one of {', '.join(Level)}, not {level!r}") from None


os.environ.setdefault("JUPYTER_COLUMNS", "88")  # of rich's bars: fits 1280 pixels beside JupyterLab's file browser
shorten_errors()
