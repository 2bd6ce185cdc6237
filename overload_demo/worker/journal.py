"""What a worker leaves to read: log lines for people, and the effect log that a reconciliation can trust."""

import logging
import os
import time
from pathlib import Path

from overload_demo.errors import ConfigurationError
from overload_demo.queue.consumer import LeasedJob, Verdict

log = logging.getLogger("overload_demo.worker")

QUIET_ABOVE_PER_S = 20  # above this many jobs a second: one summary line a second instead of a line a job


class Journal:
    """A log line a job while jobs are few; above 20 jobs a second one summary line a second instead."""

    def __init__(self) -> None:
        self._since, self._jobs, self._failed, self._quiet = time.monotonic(), 0, 0, False

    def job(self, job: LeasedJob, verdict: Verdict, text: str, busy_s: float) -> None:
        """Say that a job has ended, now or in the next summary."""
        if time.monotonic() - self._since >= 1.0:
            self.flush()
        self._jobs += 1
        self._failed += verdict is not Verdict.DONE
        self._quiet = self._quiet or self._jobs > QUIET_ABOVE_PER_S
        if self._quiet:
            return
        if verdict is Verdict.DONE:
            log.info("%s done in %.3f s", job.job_id, busy_s)
        else:
            log.warning("%s %s (attempt %d): %s", job.job_id, verdict.value, job.attempt, text[:200])

    def flush(self) -> None:
        """Sum up what was not logged line by line, and begin a new second."""
        now = time.monotonic()
        if self._quiet:
            log.info("%d jobs in the last %.1f s, %d of them failed", self._jobs, now - self._since, self._failed)
        # A busy second is followed by another one, as a rule: it begins quietly.
        self._quiet = self._jobs > QUIET_ABOVE_PER_S * (now - self._since)
        self._since, self._jobs, self._failed = now, 0, 0


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
