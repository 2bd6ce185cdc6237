"""The helper thread behind a worker: it talks to the store, so that the worker's own thread does nothing but jobs.

While a job runs, the helper keeps the batch honest: it extends the leases, settles results that have waited, gives the
unstarted rest back when the running job overruns, and stops extending a job that has used up its time. Pure-Python
work cannot starve it; a C call that holds the GIL longer than the lease can, and is then fenced and counted. One that
outlasts the time limit too is ended by the command's watchdog (``worker/watchdog.py``).
"""

import asyncio
import contextlib
import logging
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from overload_demo.config import Settings
from overload_demo.errors import OverloadDemoError, StoreError
from overload_demo.process import after_fork, replace_with_null
from overload_demo.queue.consumer import Consumer, Lease, LeasedJob, LeaseEnd, Settlement, about
from overload_demo.rest.address import Address
from overload_demo.rest.client import Upstash
from overload_demo.worker.worker_metrics import WorkerMetrics

log = logging.getLogger(__name__)
Value = TypeVar("Value")

TICK_S = 0.03
SETTLE_AFTER_S = 0.05  # with the tick and one exchange: a result is in the store within 100 ms
OVERRUN_S = 0.25
LOOK_AT_THREAD_S = 0.5
MAX_SETTLE_BYTES = 2_097_152  # a request over 10 MB is refused, and JSON in JSON may double


class LeaseRenewer:
    """Holds one worker's leases. ``fetch``, ``take``, ``finish``, ``close`` are for the thread that does the jobs.

    ``on_overdue`` is called once, in the helper thread, when a job has run longer than ``worker_job_timeout_s``: by
    then the rest of its batch is settled or given back, and its own lease is left to expire. ``on_lost`` is called
    there when its event loop has broken, as when a handler closes descriptors that are not its own: calls then fail.
    """

    def __init__(
        self,
        address: Address,
        refresh: Callable[[], Address] | None,
        settings: Settings,
        worker_id: str,
        on_overdue: Callable[[LeasedJob], None],
        on_lost: Callable[[OSError], None],
        metrics: WorkerMetrics,
        *,
        predecessors: Sequence[str] = (),
    ) -> None:
        self._settings, self._metrics = settings, metrics
        self._on_overdue, self._on_lost = on_overdue, on_lost
        self._todo: deque[LeasedJob] = deque()
        self._finished: deque[Settlement] = deque()
        self._oldest_finished = 0.0
        self._current: LeasedJob | None = None
        self._current_since = 0.0
        self._overdue = False
        self._extended_at = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        _keepers.add(self)
        self._thread = threading.Thread(target=self._run_loop, name="lease-renewer", daemon=True)
        self._thread.start()
        self._consumer, self._upstash, self._one_at_a_time, self._ticking = self._call(
            self._open(address, refresh, worker_id, predecessors)
        )

    async def _open(
        self, address: Address, refresh: Callable[[], Address] | None, worker_id: str, predecessors: Sequence[str]
    ) -> "tuple[Consumer, Upstash, asyncio.Lock, asyncio.Task[None]]":
        timeout_s, on_error = self._settings.overload_store_deadline_s, self._metrics.store_error
        upstash = Upstash(address, connections=2, timeout_s=timeout_s, refresh=refresh, on_error=on_error)
        consumer = Consumer(upstash, self._settings, worker_id, predecessors)
        return consumer, upstash, asyncio.Lock(), asyncio.create_task(self._keep())

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.close()
        except OSError as error:
            self._on_lost(error)

    def _call(self, work: Coroutine[Any, Any, Value]) -> Value:
        call = asyncio.run_coroutine_threadsafe(work, self._loop)
        while self._thread.is_alive():
            try:
                return call.result(LOOK_AT_THREAD_S)
            except TimeoutError:
                if call.done():
                    raise
        with contextlib.suppress(RuntimeError):
            work.close()
        raise OverloadDemoError("the lease renewer has lost its event loop")

    # ---- for the thread that does the jobs

    def fetch(self, max_jobs: int) -> Lease:
        """Settle what is finished and lease more, in one exchange. Raises :class:`StoreError`; nothing is forgotten."""
        return self._call(self._fetch(max_jobs))

    def queue_length(self) -> int:
        """Entries in the list, by one plain command."""
        return self._call(self._consumer.queue_length())

    def take(self) -> LeasedJob | None:
        """The next job of the batch, now running; None when the batch is used up."""
        try:
            job = self._todo.popleft()
        except IndexError:
            return None
        self._current_since = time.monotonic()
        self._current = job
        return job

    def finish(self, settlement: Settlement) -> None:
        """Hand in how the running job ended."""
        if not self._finished:
            self._oldest_finished = time.monotonic()
        self._finished.append(settlement)
        self._current = None

    def close(self) -> None:
        """Settle what is finished, give back what was not started, leave, end the thread."""
        _keepers.discard(self)
        if not self._thread.is_alive():  # reported by the call that met it
            return
        try:
            self._call(self._close())
        except StoreError as error:
            log.warning("left without settling %d jobs, their leases will expire: %s", len(self._finished), error)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5.0)

    def descriptors(self) -> list[int]:
        """Those of the connections to the store and of the loop: a forked child must not use them."""
        own = [key.fd for key in (self._selector.get_map() or {}).values()]
        return own + ([self._selector.fileno()] if isinstance(self._selector, selectors.EpollSelector) else [])

    # ---- in the helper thread

    async def _fetch(self, max_jobs: int) -> Lease:
        async with self._one_at_a_time:
            finished = self._take_finished()
            try:
                if not finished:
                    with self._metrics.timed("lease"):
                        lease = await self._consumer.lease(max_jobs)
                else:
                    with self._metrics.timed("settle_and_lease"):
                        fenced, leased = await self._consumer.settle_and_lease(finished, max_jobs)
                    self._count(finished, fenced)
                    finished = []
                    if isinstance(leased, StoreError):
                        raise leased
                    lease = leased
            except StoreError:
                self._finished.extendleft(reversed(finished))
                raise
            self._metrics.leased(len(lease.jobs))
            self._extended_at = time.monotonic()
            self._todo.extend(lease.jobs)
            return lease

    async def _keep(self) -> None:
        """Every tick: settle what waited, give back on overrun, extend, watch the time limit."""
        trouble = False
        while True:
            await asyncio.sleep(TICK_S)
            try:
                async with self._one_at_a_time:
                    await self._tick()
                trouble = False
            except StoreError as error:
                if not trouble:
                    log.warning("holding %d results until the store answers: %s", len(self._finished), error)
                trouble = True
            except Exception:
                log.exception("the lease renewer met a bug; it goes on")

    async def _tick(self) -> None:
        now = time.monotonic()
        running_s = now - self._current_since if self._current else 0.0
        given_back = self._take_unstarted() if running_s > OVERRUN_S else []
        if given_back or (self._finished and now - self._oldest_finished > SETTLE_AFTER_S):
            await self._settle(given_back)
        job = self._current
        if job and running_s > self._settings.worker_job_timeout_s:
            if not self._overdue:
                self._overdue = True
                self._on_overdue(job)
        elif (job or self._todo) and now - self._extended_at > self._settings.worker_lease_s / 3:
            await self._extend()  # with nothing held, the idle worker's next full look is its sign of life

    async def _settle(self, given_back: list[Settlement]) -> None:
        settlements = self._take_finished() + given_back
        try:
            if settlements:
                with self._metrics.timed("settle"):
                    fenced = await self._consumer.settle(settlements)
                self._count(settlements, fenced)
        except StoreError:
            self._finished.extendleft(reversed(settlements))
            raise

    async def _extend(self) -> None:
        """Extend all that is held."""
        current = self._current
        held = ([current] if current else []) + list(self._todo)
        with self._metrics.timed("extend"):
            lost = await self._consumer.extend(held)
        self._extended_at = time.monotonic()
        for job in held:
            if job.job_id in lost:
                log.warning("lost the lease of %s: another worker may have it", job.job_id, extra=about(job))
                if job in self._todo:
                    self._todo.remove(job)
                    self._metrics.lost()

    async def _close(self) -> None:
        self._ticking.cancel()
        async with self._one_at_a_time:
            try:
                await self._settle(self._take_unstarted())
                while self._finished:
                    await self._settle([])
                await self._consumer.leave()
            finally:
                await self._upstash.aclose()

    def _take_finished(self) -> list[Settlement]:
        """The oldest finished jobs, as many as fit into one request; at least one if there is any."""
        taken: list[Settlement] = []
        size = 0
        while self._finished and (not taken or size + len(self._finished[0].text) <= MAX_SETTLE_BYTES):
            taken.append(self._finished.popleft())
            size += len(taken[-1].text)
        return taken

    def _take_unstarted(self) -> list[Settlement]:
        """Take the unstarted rest of the batch away from the worker, in queue order."""
        rest: list[Settlement] = []
        while self._todo:
            try:
                rest.append(Settlement(self._todo.pop(), LeaseEnd.RELEASED))
            except IndexError:  # the worker was quicker
                break
        return rest[::-1]

    def _count(self, settlements: list[Settlement], fenced: int) -> None:
        self._metrics.settled(settlements, fenced)
        if fenced:
            log.warning("%d results came too late: their leases had been lost, nothing was changed", fenced)


_keepers: "weakref.WeakSet[LeaseRenewer]" = weakref.WeakSet()
# A child that shared the connections and the epoll set could change those of the parent.
after_fork(lambda: replace_with_null(descriptor for keeper in _keepers for descriptor in keeper.descriptors()))
