"""What a worker writes: log lines about jobs, and the effect log that a run is reconciled with."""

import logging
import os
import sysconfig
import time
import traceback
from pathlib import Path

from overload_demo.console import LogThrottle, traceback_of
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.queue.consumer import LeasedJob, LeaseEnd, about

log = logging.getLogger("overload_demo.worker")

MAX_ERROR_LENGTH = 1_000
TRACEBACK_EVERY_S = 60.0
MAX_DISTINCT_ERRORS = 100
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")


def describe(error: BaseException) -> str:
    """Return an error's type and message as storable text; its type and place if it has no message.

    Lone surrogates, which UTF-8 cannot encode, become question marks.
    """
    try:
        name, text = type(error).__name__, str(error)
        if not text.strip():
            text = f"no message, raised at {_place(error)}"
        return f"{name}: {text}"[:MAX_ERROR_LENGTH].encode("utf-8", "replace").decode()
    except BaseException:  # name and text of a handler's own class may fail as well
        return "an error whose name or text cannot be read"


def _place(error: BaseException) -> str:
    """File, line and function that raised an error: the last ones outside the standard library, if there are any."""
    try:
        frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        own = [one for one in frames if not one[0].co_filename.startswith((_STANDARD_LIBRARY, "<frozen"))]
        code, line = (own or frames)[-1]
        return f"{Path(code.co_filename).name}:{line} in {code.co_name}"
    except BaseException:  # no traceback, or a handler's own class fails
        return "an unknown place"


class FailureLog:
    """Tracebacks of failing handlers: each distinct error (type and place) once a minute, at most 100 a minute."""

    def __init__(self) -> None:
        self._logged_at: dict[tuple[int, str], float] = {}  # oldest first

    def write(self, job: LeasedJob, error: BaseException) -> None:
        """Log the traceback, with causes and the members of a group, unless the same error was logged lately."""
        place, now = _place(error), time.monotonic()
        what = id(type(error)), place
        while self._logged_at and now - next(iter(self._logged_at.values())) >= TRACEBACK_EVERY_S:
            del self._logged_at[next(iter(self._logged_at))]
        if what not in self._logged_at and len(self._logged_at) < MAX_DISTINCT_ERRORS:
            self._logged_at[what] = now
            message = "the handler failed at %s; the next traceback of this error is logged in %g s at the earliest"
            values = place, TRACEBACK_EVERY_S
            record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, values, None, extra=about(job))
            record.exc_text = traceback_of(error)  # safe here: formatting it later could raise
            log.handle(record)


class OutcomeLog:
    """A log line for each job while there are few, and the counts ``done`` and ``failed``."""

    def __init__(self) -> None:
        self.done = self.failed = 0
        self._throttle = LogThrottle(log, "jobs")
        self.flush = self._throttle.flush

    def write(self, job: LeasedJob, end: LeaseEnd, text: str, busy_s: float) -> None:
        """Log the end of a job, now or in the next summary."""
        is_done = end is LeaseEnd.DONE
        self.done += is_done
        self.failed += not is_done
        if not self._throttle.admit(failed=not is_done):
            return
        if is_done:
            log.info("%s done in %.3f s", job.job_id, busy_s, extra=about(job))
        else:
            log.warning("%s %s (attempt %d): %s", job.job_id, end.value, job.attempt, text[:200], extra=about(job))


class EffectLog:
    """An append-only file of starts and effects, one ``write`` each, so that it is complete after a ``kill -9``."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"WORKER_EFFECT_LOG: cannot write {path}: {error.strerror}") from None

    def write(self, event: str, job: LeasedJob) -> None:
        """Append ``start`` or ``effect`` with the job's id, its attempt and the time (CLOCK_MONOTONIC, seconds)."""
        try:
            os.write(self._fd, f"{event} {job.job_id} {job.attempt} {time.monotonic():.6f}\n".encode())
        except OSError as error:
            raise OverloadDemoError(f"WORKER_EFFECT_LOG: cannot write: {error.strerror}") from None
