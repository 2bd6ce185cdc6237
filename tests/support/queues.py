"""A queue under test: producer, workers and reader over a real store, with direct access to its keys."""

import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from overload_demo.config import Settings
from overload_demo.jobs import new_job_id
from overload_demo.queue.consumer import Consumer, LeasedJob, LeaseEnd, Settlement
from overload_demo.queue.maintenance import remove_all
from overload_demo.queue.producer import NewJob, Producer
from overload_demo.queue.protocol import Protocol
from overload_demo.queue.results import JobStatus, Results
from overload_demo.rest import Address, ScriptCall
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import Store
from tests.support.running import JOB

START, END = "2026-01-01T12:00:00.000Z", "2026-01-01T12:00:01.000Z"


class Repeating(Upstash):
    """A transport on which every first reply is lost: each script is carried out twice, the second reply counts."""

    async def run(self, call: ScriptCall, **options: Any) -> Any:
        await super().run(call, **options)
        return await super().run(call, **options)

    async def run_in_order(self, *calls: ScriptCall, deadline_s: float | None = None) -> list[Any]:
        await super().run_in_order(*calls, deadline_s=deadline_s)
        return await super().run_in_order(*calls, deadline_s=deadline_s)


class InTurn(Upstash):
    """A transport over several gateways of one store, given as shards: each exchange goes to the next of them."""

    def __init__(self, address: Address, **options: Any) -> None:
        super().__init__(address, **options)
        self._gateways = [Upstash(one, **options) for one in address.shards]
        self._turns = itertools.cycle(self._gateways)

    async def aclose(self) -> None:
        await super().aclose()
        for one in self._gateways:
            await one.aclose()

    async def subscribe(self, channel: str, on_message: Callable[[str], object]) -> NoReturn:
        await next(self._turns).subscribe(channel, on_message)

    async def _exchange(self, *exchange: Any) -> Any:
        try:
            return await next(self._turns)._exchange(*exchange)
        finally:
            self.calls = sum(one.calls for one in self._gateways)


class Queue:
    """The queue of one test, with helpers."""

    def __init__(self, upstash: Upstash, settings: Settings) -> None:
        self.upstash, self.settings = upstash, settings
        self.prefix = upstash.address.tag + settings.overload_key_prefix
        self.producer, self.results = Producer(upstash, settings), Results(upstash, settings)

    def worker(self, worker_id: str = "w", *, predecessors: Sequence[str] = (), **changes: Any) -> Consumer:
        """A newly started worker."""
        return Consumer(self.upstash, self.settings.model_copy(update=changes), worker_id, predecessors)

    async def enqueue(self, count: int, payload: str | None = None) -> list[str]:
        """Enqueue jobs one after the other; returns their ids in order."""
        return [await self.enqueue_one(payload) for _ in range(count)]

    async def enqueue_one(self, payload: str | None = None, **fields: str) -> str:
        job = NewJob(new_job_id(), json.dumps(JOB) if payload is None else payload, **fields)
        return (await self.producer.enqueue(job)).job_id

    async def redis(self, *command: Any) -> Any:
        return await self.upstash.command(*command)

    async def waiting(self) -> list[str]:
        """The ids in the list, head first."""
        ids: list[str] = await self.redis("LRANGE", f"{self.prefix}jobs:queue", 0, -1)
        return ids

    async def field(self, job_id: str, name: str) -> Any:
        return await self.redis("HGET", f"{self.prefix}job:{job_id}", name)

    async def ttl(self, job_id: str) -> int:
        return int(await self.redis("TTL", f"{self.prefix}job:{job_id}"))

    async def status(self, job_id: str) -> JobStatus | None:
        return (await self.results.statuses([job_id]))[0]

    async def state(self, job_id: str) -> str | None:
        status = await self.status(job_id)
        return status.state.value if status else None

    async def expire_lease(self, *job_ids: str) -> None:
        """Make leases expire now, as if their time had passed by the store's clock."""
        key = Protocol(self.prefix).key("leases")
        for job_id in job_ids:
            await self.redis("ZADD", key, "XX", 1, job_id)

    async def pass_deadline(self, *job_ids: str, within_s: float = 2.5) -> None:
        """Make deadlines pass, as if ``within_s`` seconds were over by the store's clock."""
        for job_id in job_ids:
            await self.redis("HSET", f"{self.prefix}job:{job_id}", "start_by", f"1 {within_s!r}")

    async def dead_letters(self) -> list[dict[str, str]]:
        return [json.loads(entry) for entry in await self.redis("LRANGE", f"{self.prefix}jobs:dead", 0, -1)]


@asynccontextmanager
async def open_queue(settings: Settings, store: Store, transport: type[Upstash] = Upstash) -> AsyncIterator[Queue]:
    """Open a queue for a block; its keys are removed at the end."""
    upstash = transport(store[0])
    queue = Queue(upstash, settings)
    try:
        yield queue
        if queue.prefix:  # otherwise the whole store belongs to the test
            await remove_all(upstash, queue.prefix)
    finally:
        await queue.producer.aclose()
        await queue.results.aclose()
        await upstash.aclose()


def settled(job: LeasedJob, verdict: LeaseEnd = LeaseEnd.DONE, text: str = '{"ok":1}') -> Settlement:
    """A settlement of a leased job."""
    if verdict is LeaseEnd.RELEASED:
        return Settlement(job, verdict)
    return Settlement(job, verdict, text, START, END, 0.01)


def ids_of(jobs: list[LeasedJob]) -> list[str]:
    return [job.job_id for job in jobs]


async def kill_jobs(queue: Queue, count: int) -> list[str]:
    """Enqueue jobs and settle them as dead."""
    ids = await queue.enqueue(count)
    worker = queue.worker("killer")
    while jobs := (await worker.lease(100)).jobs:
        await worker.settle([settled(job, LeaseEnd.DEAD, "no good") for job in jobs])
    return ids


async def conserved(queue: Queue) -> bool:
    stats = await queue.results.stats()
    return stats.accepted == stats.done + stats.failed + stats.cancelled + stats.queue_length + stats.in_flight
