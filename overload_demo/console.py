"""What commands print on stderr: log lines, as text or as JSON, and errors in one line."""

import errno
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal, NoReturn

import typer

from overload_demo.errors import OverloadDemoError

Format = Literal["text", "json"]

ABOUT = ("request_id", "job_id", "attempt")  # fields of a record beside its text, from the ``extra`` of a log call
QUIET_ABOVE_PER_S = 20
MAX_TRACEBACK = 20_000  # characters
FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_TEXT = "%(asctime)s %(process)d %(levelname)s %(message)s"


def one_line(text: str) -> str:
    """Escape line breaks and control characters, so that no text can imitate another log line."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error with its causes and group members, at most 20,000 characters."""
    try:
        text = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace").decode()
    except BaseException:  # an exception class of a handler may fail to format itself
        return "the traceback cannot be formatted"
    half = MAX_TRACEBACK // 2
    return text if len(text) <= MAX_TRACEBACK else f"{text[:half]}\n[...]\n{text[-half:]}"


def _exception(record: logging.LogRecord) -> str:
    """The traceback of a record, "" if it has none."""
    error = record.exc_info[1] if record.exc_info else None
    return record.exc_text or (traceback_of(error) if error is not None else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601 with Z), level, logger, process, message, the ``ABOUT`` fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        fields |= {name: getattr(record, name) for name in ABOUT if hasattr(record, name)}
        if exception := _exception(record):
            fields["exception"] = exception
        return json.dumps(fields)


class TextFormatter(logging.Formatter):
    """One text line with the request id at its end; lines of a traceback are indented, so none imitates a log line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        record.message, record.asctime = one_line(record.getMessage().rstrip()), self.formatTime(record)
        request_id = getattr(record, "request_id", "")
        about = f" (request {request_id})" if request_id else ""
        lines = _exception(record).splitlines()
        return "\n".join([self.formatMessage(record) + about, *(f"    {one_line(line)}" for line in lines)])


def log_to_stderr(
    form: Format, level: int = logging.INFO, *, note: Callable[[logging.LogRecord], bool] | None = None
) -> None:
    """Send the log lines of this process to stderr. Only commands call it, never the library.

    ``note`` is called first with each record; it may add fields, and returns whether the record is logged.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(_TEXT))
    if note is not None:
        handler.addFilter(note)
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs every exchange with its URL


class LogThrottle:
    """Decides whether each of many events gets its own log line: yes, up to 20 a second.

    Above that, one line a second summarises them; ``what`` names the events in it.
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log, self._what = log, what
        self._since, self._count, self._failed, self._is_quiet = time.monotonic(), 0, 0, False

    def admit(self, failed: bool = False) -> bool:
        """Count one event; returns whether it gets its own line, not only a place in the next summary."""
        if time.monotonic() - self._since >= 1.0:
            self.flush()
        self._count += 1
        self._failed += failed
        if self._count > QUIET_ABOVE_PER_S:
            self._is_quiet = True
        return not self._is_quiet

    def flush(self) -> None:
        """Log the summary of the present second, if there is one, and begin the next second."""
        now = time.monotonic()
        if self._is_quiet:
            counts = self._count, self._what, now - self._since, self._failed
            self._log.info("%d %s in the last %.1f s, %d of them failed", *counts)
        # A busy second is usually followed by another: it begins without lines.
        self._is_quiet = self._count > QUIET_ABOVE_PER_S * (now - self._since)
        self._since, self._count, self._failed = now, 0, 0


def fail(message: object, code: int = 1) -> NoReturn:
    """Print an error in one line on stderr, and exit with ``code``."""
    from rich.console import Console  # most processes print no error

    Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {message}", style="red", markup=False)
    sys.exit(code)


def run_command(command: Callable[..., None], name: str) -> None:
    """Run a function as the command ``name``; its help is plain text, which wraps at any width."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    app(prog_name=name)


@contextmanager
def one_line_errors(code: int = 1) -> Iterator[None]:
    """Turn this package's errors, and those about a file or a full disk, into one line, and exit ``code``.

    Any other error is a bug and keeps its traceback.
    """
    try:
        yield
    except OverloadDemoError as error:
        fail(error, code)
    except OSError as error:
        if error.filename is None and error.errno not in FULL_DISK:
            raise
        fail(": ".join(str(one) for one in (error.filename, error.strerror) if one), code)
