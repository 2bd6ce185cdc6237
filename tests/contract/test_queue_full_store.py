"""A full store: only enqueue is refused, with its own error; everything that drains the queue still works."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from overload_demo.config import load_settings
from overload_demo.errors import Outcome, StoreFullError
from overload_demo.queue.consumer import LeaseEnd
from overload_demo.queue.maintenance import QueueAdmin, QueueRepair
from overload_demo.store.connect import EmbeddedStore, Store
from tests.support.queues import Queue, ids_of, open_queue, settled
from tests.support.running import make_settings

pytestmark = pytest.mark.anyio

FILLER_BYTES = 100_000


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("small")
    settings = load_settings(overload_data_dir=folder, overload_maxmemory="5mb")
    with EmbeddedStore(folder, settings) as embedded:
        yield embedded.acquire(), embedded.refresh


@pytest.fixture
async def queue(tmp_path: Path, small_store: Store) -> AsyncIterator[Queue]:
    async with open_queue(make_settings(tmp_path), small_store) as one:
        yield one


async def fill(queue: Queue) -> None:
    """Fill the store for the rest of a test: the last write begins with a little room and takes far more.

    The server's own use, which varies by some kilobytes, then makes no room again. SETRANGE, because a large argument
    would count as used memory.
    """
    filler = f"{queue.prefix}filler"
    with pytest.raises(StoreFullError):
        for number in range(1_000):
            await queue.redis("SET", f"{filler}{number}", "x" * FILLER_BYTES)
    await queue.redis("DEL", f"{filler}0", f"{filler}1")
    await queue.redis("SETRANGE", filler, 6 * FILLER_BYTES, "x")


async def test_enqueue_is_refused_and_stores_no_part_of_the_job(queue: Queue) -> None:
    await fill(queue)

    with pytest.raises(StoreFullError) as caught:
        await queue.enqueue(1)

    assert caught.value.outcome is Outcome.NOT_ENQUEUED
    assert await queue.redis("KEYS", f"{queue.prefix}job*") == []


async def test_a_probe_is_refused_as_an_enqueue_is_and_writes_nothing(queue: Queue) -> None:
    await queue.producer.probe()
    await fill(queue)

    with pytest.raises(StoreFullError):
        await queue.producer.probe()

    assert await queue.redis("KEYS", f"{queue.prefix}jobs:*") == []


async def test_an_existing_job_is_still_reported_as_accepted(queue: Queue) -> None:
    job_id = await queue.enqueue_one("{}", idempotency_record="record", fingerprint="print")
    await fill(queue)

    assert await queue.enqueue_one("{}", idempotency_record="record", fingerprint="print") == job_id


async def test_jobs_are_leased_settled_and_released(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    worker = queue.worker()
    await fill(queue)

    jobs = (await worker.lease(2)).jobs
    fenced = await worker.settle([settled(jobs[0]), settled(jobs[1], LeaseEnd.RELEASED)])

    assert (ids_of(jobs), fenced) == (ids[:2], 0)
    assert [await queue.state(one) for one in ids] == ["done", "queued", "queued"]


async def test_expired_leases_return(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    await queue.worker("dead").lease(2)
    await queue.expire_lease(*ids)
    await fill(queue)

    assert ids_of((await queue.worker("alive").lease(5)).jobs) == ids[:1]
    assert await queue.waiting() == ids[1:]


async def test_a_running_jobs_lease_is_extended(queue: Queue) -> None:
    """Otherwise a long job would be leased to a second worker because the store is full."""
    [job_id] = await queue.enqueue(1)
    worker = queue.worker()
    jobs = (await worker.lease(1)).jobs
    await queue.expire_lease(job_id)
    await fill(queue)

    assert await worker.extend(jobs) == set()

    assert (await queue.worker("other").lease(1)).jobs == []


async def test_an_idle_worker_counts_as_alive(queue: Queue) -> None:
    worker = queue.worker()
    await fill(queue)

    await worker.lease(1)

    assert (await queue.results.stats()).workers_alive == 1


async def test_an_idle_worker_falls_asleep_and_is_woken(queue: Queue) -> None:
    worker, admin = queue.worker(), QueueAdmin([queue.upstash], queue.settings)
    await queue.enqueue(1)
    await worker.settle([settled(job, LeaseEnd.DEAD) for job in (await worker.lease(1)).jobs])
    await fill(queue)

    await worker.lease(1, 3600.0)
    assert await queue.redis("HGET", f"{queue.prefix}jobs:stats", "asleep") == "1"

    assert await admin.requeue(await admin.dead_letters()) == ["queued"]
    assert await queue.redis("HGET", f"{queue.prefix}jobs:stats", "asleep") is None


async def test_a_poison_job_becomes_a_dead_letter(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    await queue.worker("dead", worker_max_attempts=1).lease(1)
    await queue.expire_lease(job_id)
    await fill(queue)

    await queue.worker("alive", worker_max_attempts=1).lease(1)

    assert [letter["job_id"] for letter in await queue.dead_letters()] == [job_id]


async def test_a_waiting_job_is_cancelled_and_expired_jobs_are_removed(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    await queue.redis("HSET", f"{queue.prefix}job:{ids[0]}", "start_by", "1 1")
    await fill(queue)

    assert await queue.producer.cancel(ids[1]) == "cancelled"

    assert ids_of((await queue.worker().lease(1)).jobs) == ids[2:]
    assert [await queue.state(one) for one in ids] == ["failed", "cancelled", "processing"]


async def test_dead_jobs_are_requeued_and_purged(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    worker, admin = queue.worker(), QueueAdmin([queue.upstash], queue.settings)
    await worker.settle([settled(job, LeaseEnd.DEAD) for job in (await worker.lease(2)).jobs])
    first, second = await admin.dead_letters()
    await fill(queue)

    assert await admin.requeue([first]) == ["queued"]
    await admin.purge([second])

    assert await queue.waiting() == ids[:1]
    assert await queue.dead_letters() == []


async def test_lost_keys_are_repaired(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    await queue.redis("DEL", f"{queue.prefix}jobs:queue")
    await fill(queue)

    assert await QueueRepair(queue.upstash, queue.settings).run() == {"queued": 2}

    assert set(await queue.waiting()) == set(ids)
