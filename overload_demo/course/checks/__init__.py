"""Exercises of the notebooks and what judges an answer: ``check("02.peak_depth", answer, ...)`` as a cell's last line.

A check never stops Run All. It says *not done yet*, *not yet* with a hint (another one with each further try), or
*right*; and leaves the verdict in the cell's output, where ``overload-demo check`` finds it.
"""

from overload_demo.course.exercise import EXERCISES, Exercise, Status, Verdict, check

__all__ = ["EXERCISES", "Exercise", "Status", "Verdict", "check"]
