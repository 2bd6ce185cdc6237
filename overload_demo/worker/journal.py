"""What a worker leaves to read: log lines for people, and the effect log that a reconciliation can trust."""

import logging
import os
import sysconfig
import time
import traceback
from pathlib import Path

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.logs import LogThrottle, traceback_of
from overload_demo.queue.consumer import LeasedJob, LeaseEnd, about

log = logging.getLogger("overload_demo.worker")

MAX_ERROR_LENGTH = 1_000
TRACEBACK_EVERY_S = 60.0
MAX_DISTINCT_ERRORS = 100
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")


def describe(error: BaseException) -> str:
    """An error as text that can be stored: its type and message; its type and place where it has no message.

    UTF-8 has no form for lone surrogates: they become question marks.
    """
    try:
        name, text = type(error).__name__, str(error)
        if not text.strip():
            text = f"no message, raised at {_place(error)}"
        return f"{name}: {text}"[:MAX_ERROR_LENGTH].encode("utf-8", "replace").decode()
    except BaseException:  # it is a handler's class: its name and its text may fail as well
        return "an error whose name or text cannot be read"


def _place(error: BaseException) -> str:
    """File, line and function that raised an error: the last ones outside the standard library, if there are any."""
    try:
        frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        own = [one for one in frames if not one[0].co_filename.startswith((_STANDARD_LIBRARY, "<frozen"))]
        code, line = (own or frames)[-1]
        return f"{Path(code.co_filename).name}:{line} in {code.co_name}"
    except BaseException:  # without a traceback, or of a handler's class that gives nothing away
        return "an unknown place"


class FailureLog:
    """The tracebacks of failing handlers: each distinct error (type and place) once a minute."""

    def __init__(self) -> None:
        self._logged_at: dict[tuple[int, str], float] = {}  # oldest first

    def write(self, job: LeasedJob, error: BaseException) -> None:
        """Log the traceback, with causes and the members of a group, unless its like has been within a minute.

        At most 100 a minute are logged.
        """
        what, now = (id(type(error)), _place(error)), time.monotonic()
        while self._logged_at and now - next(iter(self._logged_at.values())) >= TRACEBACK_EVERY_S:
            del self._logged_at[next(iter(self._logged_at))]
        if what not in self._logged_at and len(self._logged_at) < MAX_DISTINCT_ERRORS:
            self._logged_at[what] = now
            where = "the handler failed at %s; the like is logged again in %g s at the earliest"
            arguments = what[1], TRACEBACK_EVERY_S
            record = log.makeRecord(log.name, logging.ERROR, __file__, 0, where, arguments, None, extra=about(job))
            record.exc_text = traceback_of(error)  # here, where its own texts cannot do harm
            log.handle(record)


class OutcomeLog:
    """A log line a job while there are few."""

    def __init__(self) -> None:
        self._throttle = LogThrottle(log, "jobs")
        self.flush = self._throttle.flush

    def job(self, job: LeasedJob, verdict: LeaseEnd, text: str, busy_s: float) -> None:
        """Say that a job has ended, now or in the next summary."""
        if not self._throttle.admit(failed=verdict is not LeaseEnd.DONE):
            return
        if verdict is LeaseEnd.DONE:
            log.info("%s done in %.3f s", job.job_id, busy_s, extra=about(job))
        else:
            log.warning("%s %s (attempt %d): %s", job.job_id, verdict.value, job.attempt, text[:200], extra=about(job))


class EffectLog:
    """An append-only file of starts and effects, one ``write`` each, so that it tells the truth after a kill -9."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"WORKER_EFFECT_LOG: cannot write {path}: {error.strerror}") from None

    def write(self, what: str, job: LeasedJob) -> None:
        """Append ``start`` or ``effect`` with the job's id, its attempt and the time (CLOCK_MONOTONIC, seconds)."""
        try:
            os.write(self._fd, f"{what} {job.job_id} {job.attempt} {time.monotonic():.6f}\n".encode())
        except OSError as error:
            raise OverloadDemoError(f"WORKER_EFFECT_LOG: cannot write: {error.strerror}") from None
