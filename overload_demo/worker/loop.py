"""The loop: lease a few jobs, do them one by one, settle them together with the next lease.

The thread of :class:`~overload_demo.worker.lease_renewer.LeaseRenewer` sends every request to the store; the thread
that runs :meth:`Worker.run` only does jobs.
"""

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from pydantic import ValidationError

from overload_demo.config import Settings
from overload_demo.errors import StoreError
from overload_demo.jobs import JobRequest, encode_result
from overload_demo.queue.consumer import LeasedJob, LeaseEnd, Settlement, about
from overload_demo.rest.address import Address
from overload_demo.work import Slot, utc_now
from overload_demo.worker.handler import JobContext, LazyRunner, load_handler
from overload_demo.worker.identity import WorkerIdentity
from overload_demo.worker.journal import EffectLog, FailureLog, OutcomeLog, describe
from overload_demo.worker.lease_renewer import LeaseRenewer
from overload_demo.worker.watchdog import Watchdog
from overload_demo.worker.worker_metrics import WorkerMetrics

log = logging.getLogger("overload_demo.worker")

LOST = "the connection to the store is lost (%s): does the handler close descriptors it has not opened?"
BATCH_TARGET_S = 0.05  # a batch holds about this much work
STORE_RETRY_FIRST_S = 0.25  # doubles up to the longest idle poll
MAX_RESULT_BYTES = 1_000_000


class Worker:
    """Does jobs until stopped. ``run`` blocks; ``stop`` may be called from any thread or signal handler.

    It counts in ``metrics``, without them in numbers of its own.
    At-least-once: a job is done again only if this worker dies, or runs past the limit, before its result is stored.
    """

    def __init__(
        self,
        settings: Settings,
        address: Address,
        refresh: Callable[[], Address] | None,
        *,
        metrics: WorkerMetrics | None = None,
        on_overdue: Callable[[LeasedJob], None] | None = None,
        on_lost: Callable[[OSError], None] | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.settings = settings
        self.running_job: str | None = None
        self.done = self.failed = 0
        self.overdue_job: str | None = None
        self.slot = Slot()
        self._address, self._refresh = address, refresh
        self._on_overdue = on_overdue or self._mark_overdue
        self._on_lost = on_lost or (lambda error: log.error(LOST, error.strerror))
        self._metrics = metrics or WorkerMetrics()
        self._async_runner = LazyRunner()
        self._handler = load_handler(settings, self.slot, self._async_runner)
        self._effects = EffectLog(settings.worker_effect_log) if settings.worker_effect_log else None
        self._stopping = threading.Event()
        self._recent_job_s: float | None = None
        self._job_log, self._failure_log = OutcomeLog(), FailureLog()
        self._watchdog = watchdog

    def stop(self) -> None:
        """Finish the running job, give the rest back, end. Idempotent."""
        self._stopping.set()

    def run(self, *, until_empty: bool = False) -> None:
        """Work until :meth:`stop`, or with ``until_empty`` until nothing is waiting or in flight."""
        self._pid = os.getpid()
        with WorkerIdentity(self.settings) as own:
            log.info("worker %s is up", own.name)
            keeper = LeaseRenewer(
                self._address,
                self._refresh,
                self.settings,
                own.worker_id,
                self._on_overdue,
                self._on_lost,
                self._metrics,
                predecessors=own.predecessors,
            )
            try:
                self._work(keeper, until_empty)
            finally:
                keeper.close()
                self._async_runner.close()
                self._job_log.flush()
                log.info("worker %s stopped: %d done, %d failed", own.name, self.done, self.failed)

    def _work(self, keeper: LeaseRenewer, until_empty: bool) -> None:
        idle = IdleBackoff(self.settings, self._stopping)
        trouble, pause = StoreTrouble(self.settings.max_poll_interval_s), Pause()
        while not self._stopping.is_set():
            try:
                lease = keeper.fetch(self._batch_size())
                trouble.is_over()
                pause.met(lease.paused)
                if lease.jobs:
                    idle.reset()
                elif lease.again:
                    continue
                elif until_empty and lease.queue_length == lease.in_flight == 0:
                    return
                elif until_empty:
                    self._stopping.wait(min(0.2, self.settings.worker_poll_interval))
                else:
                    idle.wait_for_work(keeper)
            except StoreError as error:
                self._stopping.wait(trouble.met(error))
            self._do_batch(keeper)

    def _do_batch(self, keeper: LeaseRenewer) -> None:
        since = time.perf_counter()
        while not self._stopping.is_set() and (job := keeper.take()):
            self.running_job = job.job_id
            if self._watchdog:
                self._watchdog.job_begins(job.job_id)
            settlement = self._do(job, since)
            self.running_job = None
            keeper.finish(settlement)
            since = time.perf_counter()
        if self._watchdog:
            self._watchdog.batch_ended(is_stopping=self._stopping.is_set())

    def _do(self, job: LeasedJob, since: float) -> Settlement:
        """Do one job; whatever it raises becomes its error. ``since``: when the worker turned to it, perf_counter."""
        started_at = utc_now()
        self._metrics.started(job.attempt)
        if self._effects:
            self._effects.write("start", job)
        verdict, text = self._outcome(job)
        if self._effects and verdict is LeaseEnd.DONE:
            self._effects.write("effect", job)
        busy_s = time.perf_counter() - since
        self._count(job, verdict, text, busy_s)
        return Settlement(job, verdict, text, started_at, utc_now(), busy_s)

    def _outcome(self, job: LeasedJob) -> tuple[LeaseEnd, str]:
        try:
            payload = json.loads(job.payload)
            JobRequest.model_validate(payload)
        except (ValueError, RecursionError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not JSON"
            return LeaseEnd.DEAD, f"unreadable: the stored payload is malformed ({reason})"
        try:
            text = encode_result(self._handler(payload, JobContext(job.job_id, job.attempt)))
        except BaseException as error:  # a handler may raise anything; the worker goes on
            self._end_if_forked(error)
            self._failure_log.write(job, error)
            return LeaseEnd.FAILED, describe(error)
        self._end_if_forked(None)
        if len(text) > MAX_RESULT_BYTES:
            return LeaseEnd.FAILED, f"the result is {len(text)} bytes of JSON, more than {MAX_RESULT_BYTES}"
        return LeaseEnd.DONE, text

    def _end_if_forked(self, error: BaseException | None) -> None:
        """End a child of fork in which the handler has returned or raised: the jobs belong to the parent."""
        if os.getpid() == self._pid:
            return
        status = 1
        try:
            if error is None or isinstance(error, SystemExit):
                code: object = None if error is None else error.code
                if code is None or isinstance(code, int):
                    status = (code or 0) & 0xFF
                else:
                    sys.stderr.write(f"{code}\n")  # as the interpreter does
            else:
                traceback.print_exception(error)
            sys.stdout.flush()
        finally:
            os._exit(status)

    def _count(self, job: LeasedJob, verdict: LeaseEnd, text: str, busy_s: float) -> None:
        if verdict is LeaseEnd.DONE:
            self.done += 1
        else:
            self.failed += 1
        recent_s = self._recent_job_s
        self._recent_job_s = busy_s if recent_s is None else 0.8 * recent_s + 0.2 * busy_s
        self._metrics.ended(busy_s)
        self._job_log.job(job, verdict, text, busy_s)

    def _batch_size(self) -> int:
        """As many jobs as about 50 ms of work; one while nothing is known or jobs are slow."""
        if self._recent_job_s is None:
            return 1
        return max(1, min(self.settings.worker_max_batch, int(BATCH_TARGET_S / max(self._recent_job_s, 1e-6))))

    def _mark_overdue(self, job: LeasedJob) -> None:
        self.overdue_job = job.job_id
        limit_s = self.settings.worker_job_timeout_s
        log.error("%s has run over its %.1f s: this worker is lost", job.job_id, limit_s, extra=about(job))
        self._stopping.set()


class StoreTrouble:
    """How long to leave a store alone that does not help, and what is said about it: each new reason once."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._pause_s, self._reason = 0.0, ""

    def met(self, error: StoreError) -> float:
        """Another failed attempt; returns the seconds until the next one makes sense."""
        self._pause_s = min(2 * self._pause_s or STORE_RETRY_FIRST_S, self._longest_s)
        if str(error) != self._reason:
            self._reason = str(error)
            log.warning("the store does not help, trying again and again: %s", error)
        return self._pause_s

    def is_over(self) -> None:
        """The store has done what was asked."""
        if self._reason:
            log.info("the store helps again")
        self._pause_s, self._reason = 0.0, ""


class Pause:
    """Says once that the queue is paused, and once that it goes on."""

    _is_on = False

    def met(self, is_on: bool) -> None:
        """What the last lease call said."""
        if is_on != self._is_on:
            self._is_on = is_on
            log.info("the queue is paused, waiting" if is_on else "the queue goes on")


class IdleBackoff:
    """Waits for work with one plain command a poll, ever more slowly; now and then lets a full lease call look."""

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        self._first_s, self._longest_s = settings.worker_poll_interval, settings.max_poll_interval_s
        # A full lease call brings back other workers' expired leases and renews the sign of life.
        self._full_look_s = settings.worker_lease_s / 2
        self._stopping = stopping
        self._pause_s = self._first_s

    def reset(self) -> None:
        """There was work: poll at the shortest interval again."""
        self._pause_s = self._first_s

    def wait_for_work(self, keeper: LeaseRenewer) -> None:
        """Return when something is waiting, when it is time for a full look, or when stopping. Raises StoreError."""
        look_at = time.monotonic() + self._full_look_s
        while not self._stopping.wait(max(0.0, min(self._pause_s, look_at - time.monotonic()))):
            self._pause_s = min(1.5 * self._pause_s, self._longest_s)
            if time.monotonic() >= look_at or keeper.queue_length() > 0:
                return
