"""Shared parts of all commands: errors in one line, and the stop signals SIGINT, SIGTERM and SIGHUP."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console

from overload_demo.errors import OverloadDemoError

Value = TypeVar("Value")


def fail(message: object, code: int = 1) -> NoReturn:
    """Print an error in one line on stderr, and exit with ``code``."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {message}", style="red", markup=False)
    sys.exit(code)


def run_command(command: Callable[..., None], name: str) -> None:
    """Run a function as the command ``name``; its help is plain text, which wraps at any width."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    app(prog_name=name)


@contextmanager
def one_line_errors(code: int = 1) -> Iterator[None]:
    """Turn this package's errors into one line and exit ``code``; any other error is a bug and keeps its traceback."""
    try:
        yield
    except OverloadDemoError as error:
        fail(error, code)


def run_async(work: Coroutine[Any, Any, Value], ended: str) -> Value:
    """Run ``work`` to its end. Ctrl-C and SIGTERM cancel it, and exit with 130 and 143 in one line with ``ended``."""

    async def cancellable() -> Value:
        task = asyncio.current_task()
        assert task is not None
        with suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(cancellable())
    except KeyboardInterrupt:
        fail(f"interrupted; {ended}", 128 + signal.SIGINT)
    except asyncio.CancelledError:
        fail(f"terminated; {ended}", 128 + signal.SIGTERM)


STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM} | ({signal.SIGHUP} if hasattr(signal, "SIGHUP") else set())  # Windows
_installed: dict[int, tuple[Any, Any]] = {}  # by signal: the handler installed here, and the earlier one
_forking = threading.local()


def on_stop_signals(stop: Callable[[], object]) -> None:
    """Call ``stop`` on the first SIGINT, SIGTERM or SIGHUP; a second one of its kind ends the process at once.

    A SIGHUP that is ignored, as under ``nohup``, stays ignored.
    """

    def first(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in STOP_SIGNALS:
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN:
            _installed[number] = first, signal.signal(number, first)


class SignalHandlers:
    """The present handlers of the stop signals, to be restored after other code has changed them."""

    def __init__(self) -> None:
        self._wanted = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def restore(self) -> list[str]:
        """Restore the handlers; returns the names of the signals that had another one. Main thread only."""
        changed = [number for number, wanted in self._wanted.items() if signal.getsignal(number) is not wanted]
        for number in changed:
            signal.signal(number, self._wanted[number])
        return [signal.Signals(number).name for number in changed]


def _before_fork() -> None:
    """Block the stop signals: one that reaches the child before its handlers are restored would be lost."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _installed)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_fork_in_child() -> None:
    """Restore the earlier handlers in the child, so that a stop signal ends it."""
    for number, (handler, before) in _installed.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, before)
    _after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
