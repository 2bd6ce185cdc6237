"""Where a worker's jobs come from: the queue of one shard, with the worker's wake-ups from it."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

from overload_demo.config import Settings
from overload_demo.errors import StoreError
from overload_demo.queue.consumer import Consumer, Lease, LeasedJob, Settlement
from overload_demo.queue.protocol import Protocol
from overload_demo.rest.client import Upstash
from overload_demo.worker.identity import Identity
from overload_demo.worker.wake_ups import WakeUps

OnSettled = Callable[[Sequence[Settlement], int], object]


class JobSource:
    """The queue of one shard. ``on_settled`` gets each batch that was settled, and how many of it were fenced.

    ``on_wake`` is called when jobs may be waiting, if :meth:`listeners` run. Raises :class:`StoreError`.
    """

    def __init__(
        self,
        upstash: Upstash,
        settings: Settings,
        identity: Identity,
        shard: int,
        on_settled: OnSettled,
        on_wake: Callable[[], object],
    ) -> None:
        self.shard = shard
        self._upstash, self._on_settled = upstash, on_settled
        self._consumer = Consumer(upstash, settings, identity.worker_id, identity.predecessors, shard)
        channel, poll_s = Protocol.of(upstash, settings).key("wake"), settings.max_poll_interval_s
        self._wake_ups = WakeUps(upstash, channel, identity.worker_id, poll_s, on_wake)

    def listeners(self) -> list[Coroutine[Any, Any, NoReturn]]:
        """What receives wake-ups, to be run in the event loop until cancelled."""
        return [self._wake_ups.listen()]

    async def lease(self, max_jobs: int, *, may_sleep: bool = True) -> Lease:
        """Lease up to ``max_jobs`` jobs; if there are none and it may, the worker sleeps (see :meth:`sleep_s`)."""
        return self._noted(await self._consumer.lease(max_jobs, *self._terms(may_sleep)))

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Settle jobs; safe to repeat."""
        self._on_settled(settlements, await self._consumer.settle(settlements))

    async def settle_and_lease(
        self, settlements: Sequence[Settlement], max_jobs: int, *, may_sleep: bool = True
    ) -> Lease | StoreError:
        """Settle and lease in one exchange. Raises if settling failed; a failed lease is returned as its error."""
        terms = self._terms(may_sleep)
        fenced, lease = await self._consumer.settle_and_lease(settlements, max_jobs, *terms)
        self._on_settled(settlements, fenced)
        return lease if isinstance(lease, StoreError) else self._noted(lease)

    async def extend(self, jobs: Sequence[LeasedJob]) -> set[str]:
        """Extend leases and renew this worker's heartbeat; returns the ids whose lease is lost."""
        return await self._consumer.extend(jobs)

    async def sleep_s(self, lease: Lease) -> float:
        """Return how long the worker may sleep after a call that leased no job, seconds; 0 means that it must poll."""
        return max(0.0, min(await self._wake_ups.confirm(), lease.first_end_s))

    async def leave(self) -> None:
        """Remove this worker from the live ones, after its last settlement."""
        await self._consumer.leave()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._upstash.aclose()

    def _terms(self, may_sleep: bool) -> tuple[float, str]:
        return self._wake_ups.terms() if may_sleep else (0.0, "")

    def _noted(self, lease: Lease) -> Lease:
        if lease.jobs:
            self._wake_ups.sleeps.reset()
        return lease
