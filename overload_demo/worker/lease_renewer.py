"""The lease renewer: a thread that sends all requests to the store, so that the worker's own thread only runs jobs.

While a job runs, it renews the leases of the batch, settles results that have waited, releases the unstarted jobs if
the running one takes long, and stops renewing a job that exceeds its time limit. Of quick jobs it leases the next batch
while one runs, so that the store and the worker do not wait for each other. A call into C code that holds the
interpreter's lock (GIL) stops the thread. Its leases then expire; if another worker takes the job back, the result is
fenced. Past the time limit the watchdog ends the worker.

Reading tour 10 of 13; next: overload_demo/worker/loop.py. Look for what each of the two threads may touch. Question:
which method keeps a slow job from running twice?
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from overload_demo.config import Settings
from overload_demo.errors import StoreError
from overload_demo.process import LoopThread
from overload_demo.queue.consumer import Lease, LeasedJob, LeaseEnd, Settlement, about
from overload_demo.store.connect import Store
from overload_demo.worker.guards import Identity
from overload_demo.worker.job_source import Reports
from overload_demo.worker.journal import WorkerMetrics
from overload_demo.worker.sharded_consumer import open_source

log = logging.getLogger("overload_demo.worker")

TICK_S = 0.03
SETTLE_AFTER_S = 0.05  # with the tick and one exchange, a result is in the store within 100 ms
BATCH_TARGET_S = 0.05  # work in one batch
OVERRUN_S = 0.25  # a running job that takes longer does not hold back the rest of its batch
MAX_SETTLE_BYTES = 2_097_152  # a request over 10 MB is refused, and JSON inside JSON may double in size


class LeaseRenewer:
    """Holds one worker's leases. The thread that runs the jobs calls the public methods.

    The renewer's thread calls ``on_overdue`` once, when a job exceeds ``worker_job_timeout_s``. By then the rest of its
    batch is settled or released, and its own lease is left to expire. It calls ``on_lost`` if the event loop fails, for
    example because a handler closed descriptors that it does not own. Further calls then fail. With ``on_wake``, which
    is called when jobs may be waiting, it subscribes to wake-ups.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        identity: Identity,
        metrics: WorkerMetrics,
        *,
        on_overdue: Callable[[LeasedJob], None],
        on_lost: Callable[[OSError], None],
        on_wake: Callable[[], object] | None = None,
    ) -> None:
        self._settings, self._metrics = settings, metrics
        self._on_overdue = on_overdue
        self._todo: deque[LeasedJob] = deque()  # the worker's thread takes the first; this one appends, takes the last
        self._finished: deque[Settlement] = deque()  # both threads append, this one takes the first
        self._oldest_finished = 0.0
        self._current: LeasedJob | None = None  # only the worker's thread sets it and its start
        self._current_since = 0.0
        self._is_overdue = False
        self._recent_job_s = 0.0  # 0 before the first job
        self._ahead: asyncio.Task[None] | None = None
        self._more_wait = False  # in the store, after the last lease
        self._asked_at = 0.0  # when the lease call was first sent that has no reply yet; 0: there is none
        self._renewed_at = time.monotonic()
        reports = Reports(self._count, on_wake or (lambda: None), self._add)
        self._source = open_source(settings, store, identity, metrics.store_error, reports)
        self._one_at_a_time = asyncio.Lock()
        self._thread = LoopThread("lease-renewer", on_lost)
        always = [self._tick_forever(), *([self._source.listen()] if on_wake else [])]
        self._running = [self._thread.start(one) for one in always]

    # ---- for the thread that runs the jobs

    def fetch(self) -> Lease:
        """Return the batch leased ahead; without one, settle finished jobs and lease more, in one exchange.

        Raises :class:`StoreError`; no settlement is lost.
        """
        if self._thread.is_alive and (ahead := list(self._todo)):
            self._thread.loop.call_soon_threadsafe(self._look_ahead)
            return Lease(ahead, 0, 0)
        return self._thread.call(self._fetch())

    def sleep_s(self, lease: Lease) -> float:
        """Return how long the worker may sleep after a call that leased no job, seconds; 0 means that it must poll."""
        return self._thread.call(self._source.sleep_s(lease))

    def take(self) -> LeasedJob | None:
        """Return the next job of the batch, which is running from now on; None at the end of the batch."""
        try:
            job = self._todo.popleft()
        except IndexError:
            return None
        self._current_since, self._current = time.monotonic(), job
        return job

    def finish(self, settlement: Settlement) -> None:
        """Record how the running job ended."""
        if not self._finished:
            self._oldest_finished = time.monotonic()
        self._finished.append(settlement)
        self._current = None
        self._recent_job_s += (
            0.2 * (settlement.busy_s - self._recent_job_s) if self._recent_job_s else settlement.busy_s
        )

    def close(self) -> None:
        """Settle finished jobs, release unstarted ones, end the thread."""
        if not self._thread.is_alive:  # reported by the call that met it
            return
        try:
            self._thread.call(self._close())
        except StoreError as error:
            log.warning("ended with %d jobs not settled, their leases will expire: %s", len(self._finished), error)
        finally:
            self._thread.stop()

    # ---- in the renewer's thread

    @property
    def _batch_size(self) -> int:
        """As many jobs as fit into ``BATCH_TARGET_S``; one before the first job and while jobs are slow."""
        fitting = int(BATCH_TARGET_S / max(self._recent_job_s or 1.0, 1e-6))
        return max(1, min(self._settings.worker_max_batch, fitting))

    async def _fetch(self) -> Lease:
        async with self._one_at_a_time:
            if late := list(self._todo):  # one batch is enough
                return Lease(late, 0, 0)
            lease = await self._exchange()
        self._look_ahead()
        return lease

    def _look_ahead(self) -> None:
        """Lease the next batch while this one runs, if more jobs wait and a full one ends within BATCH_TARGET_S."""
        if self._ahead is None or self._ahead.done():
            self._ahead = asyncio.create_task(self._fetch_ahead())

    async def _fetch_ahead(self) -> None:
        try:
            while True:
                async with self._one_at_a_time:  # the tick before may have released the batch: look now
                    if not self._may_lease_ahead():
                        return
                    await self._exchange(is_awaited=False)
        except StoreError:
            pass  # the next call of the worker's thread reports it
        except Exception:
            log.exception("bug in the lease renewer; it continues")

    def _may_lease_ahead(self) -> bool:
        most = self._settings.worker_max_batch
        is_quick = 1 < most <= self._batch_size
        return self._more_wait and is_quick and len(self._todo) <= most and not _any_interrupted(self._held())

    async def _exchange(self, *, is_awaited: bool = True) -> Lease:
        finished, self._more_wait = self._take_finished(), False
        self._asked_at = self._asked_at or time.monotonic()  # a call whose reply was lost gets the same leases again
        with self._kept_on_failure(finished), self._metrics.timed("settle_and_lease" if finished else "lease"):
            lease = await self._source.fetch(finished, self._batch_size)
        if isinstance(lease, StoreError):
            raise lease
        leased_at, self._asked_at = self._asked_at, 0.0
        self._more_wait = bool(lease.jobs and lease.queue_length) and not _any_interrupted(lease.jobs)
        self._add(lease, leased_at, is_awaited=is_awaited)
        return lease

    def _add(self, lease: Lease, leased_at: float = 0.0, *, is_awaited: bool = False) -> None:
        """Add jobs to the batch, or release them: a job that was interrupted before must be alone in this worker.

        Of late jobs it is unknown when they were leased: renew their leases at once.
        """
        self._metrics.leased(len(lease.jobs))
        held = self._held()
        is_first = is_awaited and not held
        if not is_first and _any_interrupted([*held, *lease.jobs]):
            self._finished.extend(Settlement(job, LeaseEnd.RELEASED) for job in lease.jobs)
            return
        self._renewed_at = leased_at if is_first else min(leased_at, self._renewed_at)
        self._todo.extend(lease.jobs)

    def _held(self) -> list[LeasedJob]:
        """The running job and those that wait for their turn."""
        current = self._current
        return ([current] if current else []) + list(self._todo)

    async def _tick_forever(self) -> None:
        has_failed = False
        while True:
            await asyncio.sleep(TICK_S)
            try:
                async with self._one_at_a_time:
                    await self._tick()
                has_failed = False
            except StoreError as error:
                if not has_failed:
                    log.warning("holding %d results until the store answers: %s", len(self._finished), error)
                has_failed = True
            except Exception:
                log.exception("bug in the lease renewer; it continues")

    async def _tick(self) -> None:
        """Settle what has waited, release on overrun, check the time limit, renew the leases."""
        now = time.monotonic()
        running_s = now - self._current_since if self._current else 0.0
        released = self._take_unstarted() if running_s > OVERRUN_S else []
        self._more_wait &= not released
        if released or (self._finished and now - self._oldest_finished > SETTLE_AFTER_S):
            await self._settle(released)
        job = self._current
        if job and running_s > self._settings.worker_job_timeout_s:
            if not self._is_overdue:
                self._is_overdue = True
                self._on_overdue(job)
        elif (job or self._todo) and now - self._renewed_at > self._settings.worker_lease_s / 3:
            await self._renew()  # without a lease, the idle worker's next full lease call is its heartbeat

    async def _settle(self, released: list[Settlement]) -> None:
        settlements = self._take_finished() + released
        if settlements:
            with self._kept_on_failure(settlements), self._metrics.timed("settle"):
                await self._source.settle(settlements)

    async def _renew(self) -> None:
        held, before, now = self._held(), self._renewed_at, time.monotonic()
        with self._metrics.timed("extend"):
            lost = await self._source.extend(held)
        if self._renewed_at == before:  # else late jobs have come meanwhile
            self._renewed_at = now
        for job in held:
            if job.job_id in lost:
                log.warning("lost the lease of %s: another worker may have it", job.job_id, extra=about(job))
                with contextlib.suppress(ValueError, IndexError):  # it is running, or was taken just now
                    self._todo.remove(job)
                    self._metrics.in_flight.dec()

    async def _close(self) -> None:
        async with self._one_at_a_time:
            for one in self._running:
                one.cancel()
            if self._ahead:
                self._ahead.cancel()
            try:
                while self._finished or self._todo:
                    await self._settle(self._take_unstarted())
                await self._source.leave()
            finally:
                await self._source.aclose()

    def _take_finished(self) -> list[Settlement]:
        """Take the oldest finished jobs, as many as fit into one request; at least one if there is any."""
        taken: list[Settlement] = []
        size = 0
        while self._finished and (not taken or size + len(self._finished[0].text) <= MAX_SETTLE_BYTES):
            taken.append(self._finished.popleft())
            size += len(taken[-1].text)
        return taken

    def _take_unstarted(self) -> list[Settlement]:
        """Take the unstarted rest of the batch away from the worker's thread, in queue order."""
        rest: list[Settlement] = []
        with contextlib.suppress(IndexError):  # the other thread takes from the other end
            while True:
                rest.append(Settlement(self._todo.pop(), LeaseEnd.RELEASED))
        return rest[::-1]

    @contextlib.contextmanager
    def _kept_on_failure(self, settlements: list[Settlement]) -> Iterator[None]:
        """Keep settlements for the next request if this one fails; settling twice is harmless."""
        try:
            yield
        except BaseException:
            self._finished.extendleft(reversed(settlements))
            raise

    def _count(self, settlements: Sequence[Settlement], fenced: int) -> None:
        self._metrics.settled(settlements, fenced)
        if fenced:
            log.warning("%d results came too late: their leases were lost, nothing was changed", fenced)


def _any_interrupted(jobs: Iterable[LeasedJob]) -> bool:
    return any(job.attempt > 1 for job in jobs)
