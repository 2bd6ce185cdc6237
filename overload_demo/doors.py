"""What all commands share: one-line errors, and stopping on Ctrl-C, SIGTERM and SIGHUP."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console

from overload_demo.errors import OverloadDemoError


def fail(message: object, code: int = 1) -> NoReturn:
    """Say in one line on stderr what is wrong, and end with ``code``."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {message}", style="red", markup=False)
    sys.exit(code)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn our own errors into one line and exit code 1; a traceback is for bugs."""
    try:
        yield
    except OverloadDemoError as error:
        fail(error)


def on_stop_signals(stop: Callable[[], object]) -> None:
    """Call ``stop`` on the first SIGINT, SIGTERM or SIGHUP; a second one of its kind ends the process at once.

    A SIGHUP that is ignored, as ``nohup`` asks, stays ignored.
    """

    def first(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, first)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # Windows has none
        signal.signal(signal.SIGHUP, first)
