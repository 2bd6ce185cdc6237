"""What a worker leaves to read: log lines for people, and the effect log that a reconciliation can trust."""

import logging
import os
import time
from pathlib import Path

from overload_demo.errors import ConfigurationError
from overload_demo.logs import Journal
from overload_demo.queue.consumer import LeasedJob, Verdict, about

log = logging.getLogger("overload_demo.worker")


class JobLog:
    """A log line a job while there are few."""

    def __init__(self) -> None:
        self._journal = Journal(log, "jobs")
        self.flush = self._journal.flush

    def job(self, job: LeasedJob, verdict: Verdict, text: str, busy_s: float) -> None:
        """Say that a job has ended, now or in the next summary."""
        if not self._journal.has_room(failed=verdict is not Verdict.DONE):
            return
        if verdict is Verdict.DONE:
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
        os.write(self._fd, f"{what} {job.job_id} {job.attempt} {time.monotonic():.6f}\n".encode())
