"""Cancel: a cancelled job never runs; its entry affects no other job and is removed."""

import asyncio
from dataclasses import replace

import pytest

from overload_demo.config import Settings
from overload_demo.errors import QueueFullError
from overload_demo.jobs import new_job_id
from overload_demo.lab.parts import WorkerThread
from overload_demo.queue.consumer import LeaseEnd
from overload_demo.queue.producer import NewJob, Producer
from overload_demo.store.connect import Store
from tests.support.queues import Queue, ids_of, open_queue, settled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio


async def tombstones(queue: Queue) -> int:
    return int(await queue.redis("HGET", f"{queue.prefix}jobs:stats", "tombstones") or 0)


async def test_a_cancelled_job_never_runs(queue: Queue) -> None:
    ids = await queue.enqueue(4)

    assert [await queue.producer.cancel(one) for one in ids[1:3]] == ["cancelled"] * 2

    assert ids_of((await queue.worker().lease(10)).jobs) == [ids[0], ids[3]]
    assert [await queue.state(one) for one in ids[1:3]] == ["cancelled"] * 2


async def test_repeating_a_cancel_changes_nothing(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)

    assert [await queue.producer.cancel(job_id) for _ in range(3)] == ["cancelled"] * 3

    assert (await queue.results.stats()).cancelled == 1
    assert await tombstones(queue) == 1


async def test_a_job_twice_in_one_batch_is_cancelled_once(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)

    assert await asyncio.gather(*(queue.producer.cancel(job_id) for _ in range(20))) == ["cancelled"] * 20

    assert await tombstones(queue) == 1


async def test_a_started_or_finished_job_is_not_cancelled(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    worker = queue.worker()
    jobs = (await worker.lease(3)).jobs
    await worker.settle([settled(jobs[1]), settled(jobs[2], LeaseEnd.FAILED)])

    assert [await queue.producer.cancel(one) for one in ids] == ["processing", "done", "failed"]

    assert [await queue.state(one) for one in ids] == ["processing", "done", "failed"]
    assert await queue.producer.cancel(new_job_id()) is None


async def test_a_job_of_another_owner_is_unknown(queue: Queue) -> None:
    mine = NewJob(new_job_id(), "{}", owner="me")
    await queue.producer.enqueue(mine)
    [unowned] = await queue.enqueue(1)

    assert await queue.producer.cancel(mine.job_id, "another") is None
    assert await queue.producer.cancel(unowned, "another") is None
    assert await queue.state(mine.job_id) == "queued"
    assert await queue.producer.cancel(mine.job_id, "me") == "cancelled"


async def test_the_payload_is_deleted_at_once_and_the_rest_expires_after_a_lease_passed_it(queue: Queue) -> None:
    """A TTL set at once could end while the id is still in the list: that would look like a lost job."""
    job = NewJob(new_job_id(), "{}", "record", "print")
    await queue.producer.enqueue(job)
    record = f"{queue.prefix}idem:record"
    await queue.producer.cancel(job.job_id)
    assert await queue.field(job.job_id, "payload") is None
    assert (await queue.ttl(job.job_id), await queue.redis("TTL", record)) == (-1, -1)

    await queue.worker(queue_result_ttl=100).lease(1)

    assert await queue.waiting() == []
    assert 90 <= await queue.ttl(job.job_id) <= 100
    assert 90 <= await queue.redis("TTL", record) <= 100
    assert await queue.state(job.job_id) == "cancelled"
    assert await tombstones(queue) == 0


async def test_cancelled_entries_are_not_counted(queue: Queue) -> None:
    ids = await queue.enqueue(5)
    for job_id in ids[:3]:
        await queue.producer.cancel(job_id)
    bounds = {"overload_max_queue_depth": 3, "worker_processing_delay": 2.0}
    bounded = Producer(queue.upstash, queue.settings.model_copy(update=bounds))

    stats = await queue.results.stats()
    assert (stats.queue_length, stats.cancelled) == (2, 3)
    assert (await bounded.enqueue(NewJob(new_job_id(), "{}"))).estimated_wait_s == 6.0
    with pytest.raises(QueueFullError):
        await bounded.enqueue(NewJob(new_job_id(), "{}"))
    await bounded.aclose()


async def test_jobs_enqueued_and_cancelled_without_a_worker_keep_the_list_within_its_bound(queue: Queue) -> None:
    bounded = Producer(queue.upstash, queue.settings.model_copy(update={"overload_max_queue_depth": 10}))

    for _ in range(50):
        job = NewJob(new_job_id(), "{}", "record", "print")
        await bounded.enqueue(replace(job, idempotency_record=job.job_id))
        await bounded.cancel(job.job_id)
    await bounded.aclose()

    assert await queue.waiting() == [job.job_id]
    assert await tombstones(queue) == 1
    stats = await queue.results.stats()
    assert (stats.accepted, stats.cancelled, stats.queue_length) == (50, 50, 0)


@pytest.mark.parametrize("bounds", [{"overload_max_queue_depth": 10}, {"overload_max_wait_s": 20.0}])
async def test_cancelled_entries_behind_a_waiting_job_count_towards_twice_the_bound(
    queue: Queue, bounds: dict[str, float]
) -> None:
    """They are removed, which makes room, once the job before them has left."""
    bounded = Producer(queue.upstash, queue.settings.model_copy(update={"worker_processing_delay": 2.0} | bounds))
    [first] = await queue.enqueue(1)
    with pytest.raises(QueueFullError):
        for _ in range(25):
            job = NewJob(new_job_id(), "{}")
            await bounded.enqueue(job)
            await bounded.cancel(job.job_id)

    assert len(await queue.waiting()) == 20
    await bounded.cancel(first)
    await bounded.enqueue(NewJob(new_job_id(), "{}"))
    assert len(await queue.waiting()) == 1
    assert await tombstones(queue) == 0
    await bounded.aclose()


async def test_a_cancelled_entry_removed_by_an_enqueue_expires_like_any_finished_job(queue: Queue) -> None:
    job = NewJob(new_job_id(), "{}", "record", "print")
    await queue.producer.enqueue(job)
    await queue.producer.cancel(job.job_id)
    behind = await queue.enqueue(2)

    assert await queue.waiting() == behind
    statuses = await queue.results.statuses(behind)
    assert [one.queue_position for one in statuses if one] == [1, 2]
    ttl = queue.settings.queue_result_ttl
    assert ttl - 30 <= await queue.ttl(job.job_id) <= ttl
    assert ttl - 30 <= await queue.redis("TTL", f"{queue.prefix}idem:record") <= ttl
    assert await queue.state(job.job_id) == "cancelled"


async def test_a_position_is_an_upper_bound_and_at_most_the_queue_length(queue: Queue) -> None:
    ids = await queue.enqueue(6)
    for job_id in (ids[0], ids[4]):
        await queue.producer.cancel(job_id)

    statuses = await queue.results.statuses(ids)

    assert [one.queue_position for one in statuses if one and one.state == "queued"] == [2, 3, 4, 4]


async def test_the_oldest_job_is_a_waiting_one(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    for job_id in ids[:2]:
        await queue.redis("HSET", f"{queue.prefix}job:{job_id}", "created_at", "2000-01-01T00:00:00.000Z")
        await queue.producer.cancel(job_id)

    assert (await queue.results.stats()).oldest_age_s < 1_000
    await queue.producer.cancel(ids[2])
    assert (await queue.results.stats()).oldest_age_s == 0.0


async def test_a_second_entry_of_a_cancelled_job_is_counted_once(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    await queue.producer.cancel(job_id)
    await queue.redis("RPUSH", f"{queue.prefix}jobs:queue", job_id, job_id)

    for _ in range(2):
        await queue.worker().lease(2)
    await queue.redis("RPUSH", f"{queue.prefix}jobs:queue", job_id)
    await queue.worker().lease(2)

    assert await tombstones(queue) == 0
    assert (await queue.results.stats()).cancelled == 1


async def test_a_lease_passes_hundreds_of_cancelled_entries_and_reports_that_there_are_more(queue: Queue) -> None:
    await asyncio.gather(*(queue.enqueue_one() for _ in range(1000)))
    ids = await queue.waiting()  # two batches under way at once may arrive in either order
    await asyncio.gather(*map(queue.producer.cancel, ids[:-1]))
    worker = queue.worker()

    leases = [await worker.lease(1) for _ in range(5)]

    assert [lease.again for lease in leases] == [True] * 4 + [False]
    assert [ids_of(lease.jobs) for lease in leases] == [[]] * 4 + [ids[-1:]]
    assert await tombstones(queue) == 0


async def test_a_worker_does_not_sleep_on_cancelled_entries(settings: Settings, store: Store) -> None:
    """Without the wake-up, the next poll would be an hour later."""
    polls = {"worker_poll_interval": 3600.0, "worker_max_poll_interval": 3600.0}
    slow = settings.model_copy(update=polls | {"overload_store_deadline_s": 60.0})
    async with open_queue(slow, store) as queue:
        await asyncio.gather(*(queue.enqueue_one() for _ in range(1000)))
        ids = await queue.waiting()
        await asyncio.gather(*map(queue.producer.cancel, ids[:-1]))
        worker = WorkerThread(slow, store)
        worker.start()
        try:
            await wait_until_async("the last one is done", lambda: is_done(queue, ids[-1]))
        finally:
            await asyncio.to_thread(worker.stop)


async def is_done(queue: Queue, job_id: str) -> bool:
    return await queue.state(job_id) == "done"


async def test_all_jobs_are_accounted_for(queue: Queue) -> None:
    ids = await queue.enqueue(12)
    worker = queue.worker()
    jobs = (await worker.lease(5)).jobs
    await worker.settle([settled(jobs[0]), settled(jobs[1], LeaseEnd.FAILED), settled(jobs[2], LeaseEnd.DEAD)])
    for job_id in ids[5:8]:
        await queue.producer.cancel(job_id)
    await queue.redis("HSET", f"{queue.prefix}job:{ids[8]}", "start_by", "1 1")

    for _ in range(2):
        stats = await queue.results.stats()
        assert stats.accepted == stats.done + stats.failed + stats.cancelled + stats.queue_length + stats.in_flight
        await queue.worker("another").lease(6)
    assert (stats.done, stats.failed, stats.cancelled, stats.expired, stats.dead) == (1, 3, 3, 1, 1)
