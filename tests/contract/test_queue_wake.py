"""Wake-ups: whatever makes a job ready wakes the workers that sleep, once; busy workers cost no publication."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from overload_demo.queue.consumer import LeaseEnd
from overload_demo.queue.maintenance import QueueAdmin, QueueRepair
from overload_demo.queue.protocol import Protocol
from tests.support.queues import Queue, kill_jobs, settled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

SLEEP_S = 3600.0


@contextlib.asynccontextmanager
async def subscribed(queue: Queue) -> AsyncIterator[list[str]]:
    """The messages that arrive, without the one that the subscription stands."""
    messages: list[str] = []
    channel = Protocol(queue.prefix).key("wake")
    task = asyncio.create_task(queue.upstash.subscribe(channel, messages.append))
    try:
        await wait_until_async("it is subscribed", lambda: _has(messages, 1))
        messages.clear()
        yield messages
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _has(messages: list[str], count: int) -> bool:
    return len(messages) >= count


async def published(queue: Queue, messages: list[str]) -> list[str]:
    """All messages so far: those before one of the test's own."""
    await queue.redis("PUBLISH", Protocol(queue.prefix).key("wake"), "the last")
    await wait_until_async("the last one has arrived", lambda: _ends(messages))
    return messages[:-1]


async def _ends(messages: list[str]) -> bool:
    return messages[-1:] == ["the last"]


async def fall_asleep(queue: Queue) -> None:
    lease = await queue.worker("sleeper").lease(1, SLEEP_S)
    assert (lease.jobs, lease.again) == ([], False)


async def enqueue(queue: Queue) -> Callable[[], Awaitable[object]]:
    return lambda: queue.enqueue(1)


async def requeue(queue: Queue) -> Callable[[], Awaitable[object]]:
    await kill_jobs(queue, 1)
    admin = QueueAdmin([queue.upstash], queue.settings)
    letters = await admin.dead_letters()
    return lambda: admin.requeue(letters)


async def release(queue: Queue) -> Callable[[], Awaitable[object]]:
    await queue.enqueue(1)
    worker = queue.worker("another")
    [job] = (await worker.lease(1)).jobs
    return lambda: worker.settle([settled(job, LeaseEnd.RELEASED)])


async def take_back(queue: Queue) -> Callable[[], Awaitable[object]]:
    """A worker takes two jobs of a dead one back and leases one of them."""
    await queue.enqueue(2)
    await queue.worker("w/1").lease(2)
    return lambda: queue.worker("w/2", predecessors=["w/1"]).lease(1)


async def repair(queue: Queue) -> Callable[[], Awaitable[object]]:
    await queue.enqueue(1)
    await queue.redis("DEL", f"{queue.prefix}jobs:queue")
    return QueueRepair(queue.upstash, queue.settings).run


@pytest.mark.parametrize("prepare", [enqueue, requeue, release, take_back, repair], ids=lambda one: one.__name__)
async def test_what_makes_a_job_ready_wakes_sleeping_workers_once(
    queue: Queue, prepare: Callable[[Queue], Awaitable[Callable[[], Awaitable[object]]]]
) -> None:
    make_ready = await prepare(queue)
    async with subscribed(queue) as messages:
        await fall_asleep(queue)

        await make_ready()
        assert await published(queue, messages) == [""]
        assert await queue.redis("HEXISTS", f"{queue.prefix}jobs:stats", "asleep") == 0

        messages.clear()
        await queue.enqueue(2)
        assert await published(queue, messages) == []


async def test_without_a_sleeping_worker_nothing_is_published(queue: Queue) -> None:
    async with subscribed(queue) as messages:
        await queue.worker().lease(1)
        await queue.enqueue(2)
        worker = queue.worker()
        jobs = (await worker.lease(1, SLEEP_S)).jobs
        await worker.settle([settled(job, LeaseEnd.RELEASED) for job in jobs])
        await queue.enqueue(1)

        assert await published(queue, messages) == []


async def test_a_paused_queue_wakes_its_workers_when_it_is_resumed(queue: Queue) -> None:
    admin = QueueAdmin([queue.upstash], queue.settings)
    await admin.pause()
    async with subscribed(queue) as messages:
        await fall_asleep(queue)
        await queue.enqueue(2)
        assert await published(queue, messages) == []
        messages.clear()

        await admin.resume()

        assert await published(queue, messages) == [""]


async def test_a_lease_call_publishes_a_message_of_its_caller(queue: Queue) -> None:
    async with subscribed(queue) as messages:
        await queue.worker().lease(1, SLEEP_S, "is anybody there, or not")

        assert set(await published(queue, messages)) == {"is anybody there, or not"}


async def test_a_sleeping_worker_counts_as_alive_for_its_sleep_and_a_lease(queue: Queue) -> None:
    await fall_asleep(queue)

    sign = await queue.redis("HGET", f"{queue.prefix}jobs:workers", "sleeper")
    now_s = int((await queue.redis("TIME"))[0])
    assert SLEEP_S < int(sign.split()[0]) / 1000 - now_s <= SLEEP_S + queue.settings.worker_lease_s + 1
    assert (await queue.results.stats()).workers_alive == 1


async def test_an_empty_lease_call_reports_when_the_first_lease_ends(queue: Queue) -> None:
    assert (await queue.worker().lease(1)).first_end_s == math.inf
    await queue.enqueue(2)
    await queue.worker("a", worker_lease_s=100.0).lease(1)
    await queue.worker("b", worker_lease_s=50.0).lease(1)

    assert 40 < (await queue.worker().lease(1)).first_end_s <= 51
