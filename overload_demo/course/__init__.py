"""What notebooks teach with: the load level, predictions, exercises that are checked, and the concept inventory.

One variable, OVERLOAD_LEVEL, sets how heavy the load of every notebook is.
"""

import asyncio
import builtins
import contextlib
import linecache
import os
import traceback
from enum import StrEnum
from types import TracebackType
from typing import Any, TypeVar

from overload_demo.course.exercise import broken_queues, check, grade
from overload_demo.course.inventory import Inventory
from overload_demo.course.prediction import Comparison, Prediction
from overload_demo.errors import ConfigurationError, OverloadDemoError

__all__ = ["Comparison", "Inventory", "Level", "Prediction", "broken_queues", "by_level", "check", "grade"]

Value = TypeVar("Value")
WAKES_EVERY_S = 0.2


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


def shorten_errors() -> None:
    """Show a stopped cell, and an error that a student can cause, as one sentence; ``%tb`` shows its traceback.

    Only in a Jupyter kernel. The stop button also works within ``WAKES_EVERY_S`` in a cell that only waits.
    """
    shell = getattr(builtins, "get_ipython", lambda: None)()
    if shell is not None:
        shell.set_custom_exc((OverloadDemoError, NameError, KeyboardInterrupt, asyncio.CancelledError), _show)
        with contextlib.suppress(RuntimeError):  # no loop runs: not in a cell
            _wake(asyncio.get_running_loop())


def _wake(loop: asyncio.AbstractEventLoop) -> None:
    """Wake the loop again and again: a loop that waits for one event finds the cancellation of its cell after it."""
    loop.call_later(WAKES_EVERY_S, _wake, loop)


def _show(shell: Any, kind: type[Any], error: Any, trace: TracebackType, tb_offset: int | None = None) -> None:
    if isinstance(error, OverloadDemoError):
        sentence = f"{kind.__name__}: {error}\n{_place(shell, trace)}"
    elif isinstance(error, NameError):
        hint = "Is it misspelled, or was a cell above not run since the Jupyter kernel has started?"
        sentence = f"{kind.__name__}: {error}. {hint}\n{_place(shell, trace)}"
    else:
        sentence = f"Stopped (■). You can run the cell again.\n{_place(shell, trace)}"
    error._render_traceback_ = lambda: [sentence.strip()]
    try:
        shell.showtraceback((kind, error, trace))
    finally:
        del error._render_traceback_


def _place(shell: Any, trace: TracebackType) -> str:
    """Return the innermost line of a cell: the student's own function, if it was that."""
    for frame in reversed(traceback.extract_tb(trace)):
        if label := shell.compile.format_code_name(frame.filename):
            code = linecache.getline(frame.filename, frame.lineno or 0).strip()
            return f"{' '.join(label)}, line {frame.lineno}: {code}"
    return ""


os.environ.setdefault("JUPYTER_COLUMNS", "88")  # of rich's bars: fits 1280 pixels beside JupyterLab's file browser
shorten_errors()
