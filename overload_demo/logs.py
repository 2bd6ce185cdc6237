"""Log lines on stderr, as text for people or as JSON for machines."""

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

Format = Literal["text", "json"]

ABOUT = ("request_id", "job_id", "attempt")  # what a line may carry beside its text: the ``extra`` of a log call
QUIET_ABOVE_PER_S = 20
MAX_TRACEBACK = 20_000  # characters
_TEXT = "%(asctime)s %(process)d %(levelname)s %(message)s"


def one_line(text: str) -> str:
    """A text without line breaks and control characters, which could pass for other lines: they are escaped."""
    return text if text.isprintable() else "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return repr(character)[1:-1]


def traceback_of(error: BaseException) -> str:
    """The traceback of an error with its causes and the members of a group, at most 20,000 characters of it."""
    try:
        text = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace").decode()
    except BaseException:  # the texts of a handler's own class may fail
        return "the traceback cannot be formatted"
    half = MAX_TRACEBACK // 2
    return text if len(text) <= MAX_TRACEBACK else f"{text[:half]}\n[...]\n{text[-half:]}"


def _exception(record: logging.LogRecord) -> str:
    """The traceback that a record carries, "" without one."""
    error = record.exc_info[1] if record.exc_info else None
    return record.exc_text or (traceback_of(error) if error is not None else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601 with Z), level, logger, process, message, and what it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """The library's hook."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        told |= {name: getattr(record, name) for name in ABOUT if hasattr(record, name)}
        if exception := _exception(record):
            told["exception"] = exception
        return json.dumps(told)


class TextFormatter(logging.Formatter):
    """A line for people; the id of a request, which no message tells, comes last.

    The lines of a traceback are indented, so that none of them passes for a log line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The library's hook."""
        record.message, record.asctime = one_line(record.getMessage().rstrip()), self.formatTime(record)
        request_id = getattr(record, "request_id", "")
        about = f" (request {request_id})" if request_id else ""
        lines = _exception(record).splitlines()
        return "\n".join([self.formatMessage(record) + about, *(f"    {one_line(line)}" for line in lines)])


def log_to_stderr(
    form: Format, level: int = logging.INFO, *, note: Callable[[logging.LogRecord], bool] | None = None
) -> None:
    """Send the log lines of this process to stderr. Called by commands only, never by the library.

    ``note`` sees each record first, may add to it what it is about, and returns whether it is logged.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(_TEXT))
    if note is not None:
        handler.addFilter(note)
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(True)
    # httpx logs every exchange at INFO, with its URL
    logging.getLogger("httpx").setLevel(logging.WARNING)


class LogThrottle:
    """Whether to write a log line for each of many events: yes while they are few.

    Above 20 a second, one line a second that sums them up takes their place; ``what`` they are is its word for them.
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log, self._what = log, what
        self._since, self._count, self._failed, self._is_quiet = time.monotonic(), 0, 0, False

    def admit(self, failed: bool = False) -> bool:
        """Count one event; whether it may have a line of its own, or is told of in the next summary."""
        if time.monotonic() - self._since >= 1.0:
            self.flush()
        self._count += 1
        self._failed += failed
        if self._count > QUIET_ABOVE_PER_S:
            self._is_quiet = True
        return not self._is_quiet

    def flush(self) -> None:
        """Sum up what was not logged line by line, and begin a new second."""
        now = time.monotonic()
        if self._is_quiet:
            within_s = now - self._since
            self._log.info(
                "%d %s in the last %.1f s, %d of them failed", self._count, self._what, within_s, self._failed
            )
        # A busy second is followed by another one, as a rule: it begins quietly.
        self._is_quiet = self._count > QUIET_ABOVE_PER_S * (now - self._since)
        self._since, self._count, self._failed = now, 0, 0
