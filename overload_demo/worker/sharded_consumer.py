"""A worker's jobs from several shards: the next batch comes from the shard whose head is oldest.

Each shard has at most one call under way, in a task of its own, which is repeated with growing pauses until the shard
answers. Meanwhile the other shards are served. Settlements that a shard has not taken wait, and are sent before
anything else.

Each lease call returns when the job at the head was accepted. An empty shard needs no look while another shard has a
job that is older than the last look, and none while this worker sleeps there and can be woken.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreError, StoreUnavailableError
from overload_demo.queue.consumer import Lease, LeasedJob, LeaseEnd, Settlement
from overload_demo.queue.protocol import age_s
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import Store, clients_of
from overload_demo.worker.guards import Identity
from overload_demo.worker.job_source import RETRY_FIRST_S, Backoff, JobSource, Reports

log = logging.getLogger("overload_demo.worker")

LOOK_EVERY_S = 0.05  # chosen: fast jobs do not pay a look for each batch, and the order is right within this
BRIEFLY_S = 0.5  # chosen: some exchanges with Upstash; a shard that dies costs the others so long, once
UNKNOWN = Lease([], 0, 1)  # the counts of a shard that has not answered: it may have a job
Call = asyncio.Task[Any]


class ServedShard(JobSource):
    """One of several shards: its last reply, and the settlements not sent. Times are those of ``time.monotonic``."""

    def __init__(self, upstash: Upstash, settings: Settings, identity: Identity, shard: int, reports: Reports) -> None:
        def woken() -> None:
            self.wake()
            reports.woken()

        super().__init__(upstash, settings, identity, shard, reports._replace(woken=woken))
        self.owed: deque[Sequence[Settlement]] = deque()
        self.last = UNKNOWN
        self.head_at = math.inf  # when the job at the head was accepted; infinite: none is known
        self.seen_at = -math.inf  # the last lease call
        self.is_told = False  # that this worker may sleep, in the last lease call
        self.asleep_until = 0.0
        self.error: StoreError | None = None
        self.call: Call | None = None
        self.leaving = asyncio.Event()

    @property
    def is_free(self) -> bool:
        """Whether it answers, and no call is under way."""
        return self.error is None and (self.call is None or self.call.done())

    def exchange(self, max_jobs: int | None = None, *, may_sleep: bool = False) -> Call:
        """Settle what is owed; then lease, unless ``max_jobs`` is None."""
        return self.begin(partial(self._exchange, max_jobs, may_sleep))

    def begin(self, work: Callable[[], Awaitable[object]]) -> Call:
        """Start a call; none may be under way."""
        self.call = asyncio.create_task(self._repeat(work))
        return self.call

    def wake(self) -> None:
        """End the sleep."""
        self.is_told, self.asleep_until = False, 0.0

    async def fall_asleep(self) -> None:
        """Sleep if the shard has the mark, no wake-up has arrived since, and the next one will arrive."""
        sleep_s = await self.sleep_s(self.last)
        if self.is_told and sleep_s:
            self.asleep_until = time.monotonic() + sleep_s
        self.is_told = False

    async def _repeat(self, work: Callable[[], Awaitable[object]]) -> object:
        """Do ``work`` until the shard answers, or once more when the worker leaves."""
        pauses = Backoff(RETRY_FIRST_S, self._settings.max_poll_interval_s, 2.0)
        while True:
            try:
                result = await work()
                break
            except StoreError as error:
                if self.error is None:
                    log.warning("shard %d fails, the others are served: %s", self.shard, error)
                self.error, self.last, self.head_at = error, UNKNOWN, math.inf
                self.wake()
                if self.leaving.is_set():
                    raise
            except Exception:
                self.error = None  # a bug: the next call may meet another case
                raise
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.leaving.wait(), pauses.next_s())
        if self.error:
            log.info("shard %d answers again", self.shard)
            self.error = None
        return result

    async def _exchange(self, max_jobs: int | None, may_sleep: bool) -> Lease | None:
        while self.owed and (max_jobs is None or len(self.owed) > 1):
            await self.settle(self.owed[0])
            self.owed.popleft()
        if max_jobs is None:
            return None
        self.last, settlements = UNKNOWN, self.owed[0] if self.owed else []
        lease = await self.fetch(settlements, max_jobs, may_sleep=may_sleep)
        if settlements:
            self.owed.popleft()
        if isinstance(lease, StoreError):
            raise lease
        self.last, self.seen_at = lease, time.monotonic()
        has_head = lease.head != "" and not lease.paused
        self.head_at = self.seen_at - age_s(lease.head, time.time(), math.inf) if has_head else math.inf
        self.is_told = may_sleep and not has_head and not lease.jobs
        return lease


class ShardedConsumer:
    """The queues of several shards, in the place of a :class:`JobSource`. Raises StoreError if no shard answers.

    It also reports ``woken`` after a call that was not waited for. Use it in one event loop, one call at a time except
    :meth:`sleep_s`.
    """

    def __init__(
        self, clients: Mapping[int, Upstash], settings: Settings, identity: Identity, reports: Reports
    ) -> None:
        self._look_within_s = settings.worker_lease_s / 3
        self._leave_within_s = min(settings.worker_grace_s, settings.overload_store_deadline_s) / 2  # twice
        self._reports = reports
        self._shards = [ServedShard(client, settings, identity, number, reports) for number, client in clients.items()]

    async def listen(self) -> None:
        """Receive the wake-ups of each shard until cancelled."""
        await asyncio.gather(*(shard.listen() for shard in self._shards))

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Settle jobs; what fails is owed, and settled once the shard answers."""
        self._owe(settlements)
        await self._briefly([shard.exchange() for shard in self._owing()])

    async def fetch(self, settlements: Sequence[Settlement], max_jobs: int) -> Lease | StoreError:
        """Settle, and lease up to ``max_jobs`` jobs from one shard; the counts are sums over the shards.

        It is one exchange if both concern one shard; otherwise it is several at the same time.
        """
        self._owe(settlements)
        is_idle, now = self._oldest() is None, time.monotonic()
        looks = self._due(now) | self._owing()
        awake = {shard for shard in looks if now >= shard.asleep_until}
        if is_idle and len(awake) == 1:  # it has woken this worker, or ran out of jobs: one exchange is enough
            [target] = awake
            beside = [shard.exchange(0, may_sleep=True) for shard in looks - awake]
            if lease := await self._leased(target, max_jobs, beside, may_sleep=True):
                return lease
        elif is_idle or looks > self._owing():
            await self._briefly([shard.exchange(0, may_sleep=is_idle) for shard in looks])
        while oldest := self._oldest():
            beside = [shard.exchange() for shard in self._owing() - {oldest}]
            if lease := await self._leased(oldest, max_jobs, beside):
                return lease
        is_untold = any(not shard.is_told and time.monotonic() >= shard.asleep_until for shard in self._free())
        return self._sums([], again=is_untold)

    async def extend(self, jobs: Sequence[LeasedJob]) -> set[str]:
        """Extend leases, and look at the other shards in their turn; returns the ids whose lease is lost."""
        extends, looks, now = [], [], time.monotonic()
        unreached: StoreError | None = None
        for shard in self._shards:
            held = [job for job in jobs if job.shard == shard.shard]
            if held and shard.is_free:
                extends.append(shard.begin(partial(shard.extend, held)))
            elif held:
                unreached = shard.error or StoreUnavailableError(f"shard {shard.shard} has not answered yet")
            elif shard.is_free and now - shard.seen_at > self._look_within_s:
                looks.append(shard.exchange(0))
        await self._briefly([*extends, *looks])
        if unreached:
            raise unreached
        return set().union(*(call.result() for call in extends if call.done()))

    async def sleep_s(self, _: Lease) -> float:
        """Return how long the worker may sleep after a call that leased no job, seconds; 0 means that it must poll."""
        await asyncio.gather(*(shard.fall_asleep() for shard in self._free() if shard.is_told))
        ends = [shard.asleep_until for shard in self._free()]
        return max(0.0, min(ends, default=0.0) - time.monotonic())

    async def leave(self) -> None:
        """Settle what is owed, once more, and leave each shard; logs what remains."""
        self._reports = self._reports._replace(late=self._release)
        for shard in self._shards:
            shard.leaving.set()
        await self._end_calls()
        for shard in self._free():
            shard.begin(shard.leave)
        await self._end_calls()
        for shard in self._shards:
            if count := sum(map(len, shard.owed)):
                log.warning("shard %d: ended with %d jobs not settled, their leases will expire", shard.shard, count)
            if shard.call:
                shard.call.cancel()

    async def aclose(self) -> None:
        """Close the connections."""
        for shard in self._shards:
            await shard.aclose()

    def _free(self) -> set[ServedShard]:
        return {shard for shard in self._shards if shard.is_free}

    def _owing(self) -> set[ServedShard]:
        return {shard for shard in self._free() if shard.owed}

    def _oldest(self) -> ServedShard | None:
        """The shard whose head is oldest, if any head is known."""
        heads = {shard for shard in self._free() if shard.head_at < math.inf}
        return min(heads, key=lambda shard: shard.head_at, default=None)

    def _due(self, now: float) -> set[ServedShard]:
        """The shards that may have a job older than each known one, or were not looked at for long.

        A shard that was empty has no job from before that look, except those of leases that have expired.
        """
        oldest = self._oldest()
        before = min(oldest.head_at, now - LOOK_EVERY_S) if oldest else math.inf
        return {
            shard
            for shard in self._free()
            if now - shard.seen_at > self._look_within_s
            or (shard.head_at == math.inf and shard.seen_at < before and now >= shard.asleep_until)
        }

    async def _leased(
        self, target: ServedShard, max_jobs: int, beside: Sequence[Call], *, may_sleep: bool = False
    ) -> Lease | StoreError | None:
        """Lease from a shard, with other calls beside; None if it has no job, or does not answer."""
        call = target.exchange(max_jobs, may_sleep=may_sleep)
        await self._briefly([call, *beside])
        if not call.done():
            return None
        lease = call.result()
        return self._sums(lease.jobs, again=lease.again) if lease.jobs or lease.again else None

    def _sums(self, jobs: list[LeasedJob], *, again: bool) -> Lease | StoreError:
        answering = [shard.last for shard in self._shards if shard.error is None]
        if not answering:
            return next(shard.error for shard in self._shards if shard.error)
        waiting = sum(shard.last.queue_length for shard in self._shards)
        in_flight = sum(shard.last.in_flight for shard in self._shards)
        return Lease(jobs, waiting, in_flight, again, all(one.paused for one in answering) and not jobs)

    def _owe(self, settlements: Sequence[Settlement]) -> None:
        for shard in self._shards:
            if own := [one for one in settlements if one.job.shard == shard.shard]:
                shard.owed.append(own)

    def _release(self, late: Lease) -> None:
        self._owe([Settlement(job, LeaseEnd.RELEASED) for job in late.jobs])

    async def _briefly(self, calls: Sequence[Call]) -> None:
        """Wait for calls, but not for long."""
        if calls:
            done, late = await asyncio.wait(calls, timeout=BRIEFLY_S)
            for call in done:
                call.result()  # raises what is a bug
            for call in late:
                call.add_done_callback(self._end_late)

    def _end_late(self, call: Call) -> None:
        """Add the jobs of a late lease call, and send the settlements that have waited for it."""
        if call.cancelled() or isinstance(call.exception(), StoreError):
            return
        if isinstance(lease := call.result(), Lease) and lease.jobs:
            self._reports.late(lease)
        for shard in self._owing():
            shard.exchange().add_done_callback(self._end_late)
        self._reports.woken()

    async def _end_calls(self) -> None:
        calls = [shard.call for shard in self._shards if shard.call]
        if calls:
            await asyncio.wait(calls, timeout=self._leave_within_s)


def open_source(
    settings: Settings,
    store: Store,
    identity: Identity,
    on_error: Callable[[StoreError], object],
    reports: Reports,
) -> JobSource | ShardedConsumer:
    """Open the shards of WORKER_SHARDS, or all. Raises :class:`ConfigurationError` if one is not configured."""
    clients = clients_of(store, connections=2, timeout_s=settings.overload_store_deadline_s, on_error=on_error)
    chosen = {int(one) for one in (settings.worker_shards or "").split(",") if one} or set(range(len(clients)))
    if max(chosen) >= len(clients):
        message = f"WORKER_SHARDS: there is no shard {max(chosen)}, the last one is {len(clients) - 1}"
        raise ConfigurationError(message)
    if len(chosen) == 1:
        [shard] = chosen
        return JobSource(clients[shard], settings, identity, shard, reports)
    served = {shard: clients[shard] for shard in sorted(chosen)}
    return ShardedConsumer(served, settings, identity, reports)
