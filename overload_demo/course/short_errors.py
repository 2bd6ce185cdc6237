"""Show a stopped cell, and an error that a student can cause, as one sentence below the cell.

The traceback of either has dozens of lines of this package; ``%tb`` in the next cell shows it.
"""

import asyncio
import builtins
import contextlib
import linecache
import traceback
from types import TracebackType
from typing import Any

from overload_demo.errors import OverloadDemoError

WAKES_EVERY_S = 0.2


def shorten_errors() -> None:
    """Shorten the errors raised on purpose, and those of the stop button, in this Jupyter kernel; elsewhere nothing.

    The stop button also works within ``WAKES_EVERY_S`` in a cell that only waits.
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
