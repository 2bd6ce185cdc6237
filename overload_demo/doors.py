"""What all commands share: one-line errors, and stopping on Ctrl-C and SIGTERM."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console

from overload_demo.errors import OverloadDemoError


def fail(message: object, code: int = 1) -> NoReturn:
    """Say in one line on stderr what is wrong, and end with ``code``."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {message}", style="red", markup=False)
    sys.exit(code)


def run_command(command: Callable[..., None], name: str) -> None:
    """Run a function as the command ``name``; its help is plain text, which wraps at any width."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    app(prog_name=name)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn our own errors into one line and exit code 1; a traceback is for bugs."""
    try:
        yield
    except OverloadDemoError as error:
        fail(error)


def on_stop_signals(stop: Callable[[], object]) -> None:
    """Call ``stop`` on the first SIGINT or SIGTERM; a second one ends the process at once."""

    def first(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, first)
