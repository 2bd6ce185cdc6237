"""The worker's loop: lease a few jobs, run them one by one, settle them together with the next lease.

The lease renewer's thread sends every request to the store; the thread of :meth:`Worker.run` only runs jobs.

Reading tour 11 of 13; next: overload_demo/queue/results.py. Look for the few lines that run one job. Question: what
happens to the rest of the batch when the worker stops?
"""

import json
import logging
import os
import threading
import time

from pydantic import ValidationError

from overload_demo.config import Settings
from overload_demo.errors import StoreError
from overload_demo.jobs import JobRequest, encode_result
from overload_demo.queue.consumer import LeasedJob, LeaseEnd, Settlement, about
from overload_demo.store.connect import Store
from overload_demo.work import utc_now
from overload_demo.worker.guards import Watchdog, locked_identity
from overload_demo.worker.handler import AsyncRunner, JobContext, end_forked_child, load_handler
from overload_demo.worker.job_source import Backoff
from overload_demo.worker.journal import EffectLog, FailureLog, OutcomeLog, WorkerMetrics, describe
from overload_demo.worker.lease_renewer import LeaseRenewer

log = logging.getLogger("overload_demo.worker")

EXIT_JOB_OVERDUE = 3
STORE_RETRY_FIRST_S = 0.25  # doubles up to the longest idle poll
MAX_RESULT_BYTES = 1_000_000


class Worker:
    """Runs jobs until stopped. :meth:`run` blocks; :meth:`stop` may be called from any thread or signal handler.

    Delivery is at least once. A job without a stored result runs again if this worker dies, if its lease expires and is
    taken back, or if it exceeds its time limit. With a ``watchdog`` the worker ends its process after such a job.
    """

    def __init__(
        self, settings: Settings, store: Store, metrics: WorkerMetrics | None = None, watchdog: Watchdog | None = None
    ) -> None:
        self.settings, self._store = settings, store
        self.running_job: str | None = None
        self.overdue_job: str | None = None
        self._metrics, self._watchdog = metrics or WorkerMetrics(), watchdog
        self._async_runner = AsyncRunner()
        self._handler = load_handler(settings, self._async_runner)
        self._effects = EffectLog(settings.worker_effect_log) if settings.worker_effect_log else None
        self._outcomes, self._failures = OutcomeLog(), FailureLog()
        self._stopping, self._woken = threading.Event(), threading.Event()
        self._trouble, self._is_paused = "", False

    def stop(self) -> None:
        """Finish the running job, release the others, end. Idempotent."""
        self._stopping.set()
        self._woken.set()

    def run(self, *, until_empty: bool = False) -> None:
        """Work until :meth:`stop`, or with ``until_empty`` until no job is waiting or in flight."""
        self._pid = os.getpid()
        with locked_identity(self.settings) as own:
            log.info("worker %s is up", own.name)
            renewer = LeaseRenewer(
                self.settings,
                self._store,
                own,
                self._metrics,
                on_overdue=self._end_overdue,
                on_lost=self._end_lost,
                on_wake=None if until_empty else self._woken.set,
            )
            try:
                self._work(renewer, until_empty)
            finally:
                renewer.close()
                self._async_runner.close()
                self._outcomes.flush()
                log.info("worker %s stopped: %d done, %d failed", own.name, self._outcomes.done, self._outcomes.failed)

    def _work(self, renewer: LeaseRenewer, until_empty: bool) -> None:
        idle = Backoff(self.settings.worker_poll_interval, self.settings.max_poll_interval_s, 1.5)
        retry = Backoff(STORE_RETRY_FIRST_S, self.settings.max_poll_interval_s, 2.0)
        while True:
            self._woken.clear()
            if self._stopping.is_set():  # checked after the clear, which may have removed its wake-up
                return
            try:
                lease = renewer.fetch()
                retry.reset()
                self._log_changes("", lease.paused)
                if lease.jobs:
                    idle.reset()
                    self._run_batch(renewer, len(lease.jobs))
                elif lease.again:
                    continue
                elif until_empty and lease.queue_length == lease.in_flight == 0:
                    return
                elif until_empty:
                    self._stopping.wait(min(0.2, self.settings.worker_poll_interval))
                else:
                    self._wait_for_work(renewer.sleep_s(lease), idle)
            except StoreError as error:
                self._log_changes(str(error), self._is_paused)
                self._woken.wait(retry.next_s())

    def _run_batch(self, renewer: LeaseRenewer, count: int) -> None:
        since = time.perf_counter()
        while count and not self._stopping.is_set() and (job := renewer.take()):
            count -= 1  # without the jobs that are leased meanwhile: a batch must end
            self.running_job = job.job_id
            if self._watchdog:
                self._watchdog.job_begins(job.job_id)
            settlement = self._run_job(job, since)
            self.running_job = None
            renewer.finish(settlement)
            since = time.perf_counter()
        if self._watchdog:
            self._watchdog.batch_ended(is_stopping=self._stopping.is_set())

    def _run_job(self, job: LeasedJob, since: float) -> Settlement:
        """Run one job; ``since`` is when the worker turned to it (``perf_counter``)."""
        started_at = utc_now()
        self._metrics.started(job.attempt)
        if self._effects:
            self._effects.write("start", job)
        end, text = self._outcome(job)
        if self._effects and end is LeaseEnd.DONE:
            self._effects.write("effect", job)
        busy_s = time.perf_counter() - since
        self._metrics.handler_seconds.observe(busy_s)
        self._outcomes.write(job, end, text, busy_s)
        return Settlement(job, end, text, started_at, utc_now(), busy_s)

    def _outcome(self, job: LeasedJob) -> tuple[LeaseEnd, str]:
        """Call the handler; what it raises becomes the job's error. A payload that is not a job makes it dead."""
        try:
            payload = json.loads(job.payload)
            JobRequest.model_validate(payload)
        except (ValueError, RecursionError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not JSON"
            return LeaseEnd.DEAD, f"unreadable: the stored payload is malformed ({reason})"
        try:
            text = encode_result(self._handler(payload, JobContext(job.job_id, job.attempt)))
        except BaseException as error:  # a handler may raise anything, SystemExit included
            end_forked_child(self._pid, error)
            self._failures.write(job, error)
            return LeaseEnd.FAILED, describe(error)
        end_forked_child(self._pid, None)
        if len(text) > MAX_RESULT_BYTES:
            return LeaseEnd.FAILED, f"the result is {len(text)} bytes of JSON, more than {MAX_RESULT_BYTES}"
        return LeaseEnd.DONE, text

    def _wait_for_work(self, sleep_s: float, idle: Backoff) -> None:
        """Sleep until the worker is woken or stopped, at most ``sleep_s``; if that is 0, until the next poll.

        The next lease call takes back expired leases of other workers and renews this worker's heartbeat.
        """
        if sleep_s:
            idle.reset()
        self._woken.wait(sleep_s or min(idle.next_s(), self.settings.worker_lease_s / 2))

    def _log_changes(self, trouble: str, is_paused: bool) -> None:
        """Log once that the store fails, for each new reason, that it answers again, and a pause of the queue."""
        if trouble and trouble != self._trouble:
            log.warning("store request failed, retrying: %s", trouble)
        if self._trouble and not trouble:
            log.info("the store answers again")
        if is_paused != self._is_paused:
            log.info("the queue is paused, waiting" if is_paused else "the queue is resumed")
        self._trouble, self._is_paused = trouble, is_paused

    def _end_overdue(self, job: LeasedJob) -> None:
        """Stop: a running job cannot be stopped from outside, only its process. Its lease expires or is reclaimed."""
        self.overdue_job = job.job_id
        message = "%s exceeds WORKER_JOB_TIMEOUT_S (%g s) and counts as interrupted; this worker ends"
        log.error(message, job.job_id, self.settings.worker_job_timeout_s, extra=about(job))
        self.stop()
        if self._watchdog:
            os._exit(EXIT_JOB_OVERDUE)

    def _end_lost(self, error: OSError) -> None:
        """Stop: without its descriptors the process can neither work nor stop cleanly."""
        message = "the connection to the store is lost (%s): does the handler close descriptors it has not opened?"
        log.error(message, error.strerror)
        self._woken.set()
        if self._watchdog:
            os._exit(1)
