"""Enqueue: atomic, once per id, in order, within the bounds."""

import asyncio
from pathlib import Path

import pytest

from overload_demo.errors import IdempotencyConflictError, QueueFullError, StoreRefusedError
from overload_demo.jobs import new_job_id
from overload_demo.queue.producer import NewJob, Producer
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import Store
from tests.support.queues import Queue, ids_of, open_queue, settled
from tests.support.running import make_settings

pytestmark = pytest.mark.anyio


async def test_jobs_wait_in_the_order_of_enqueueing(queue: Queue) -> None:
    ids = await queue.enqueue(5)

    assert await queue.waiting() == ids
    assert [(await queue.field(one, "seq")) for one in ids] == ["1", "2", "3", "4", "5"]
    assert (await queue.results.stats()).accepted == 5


async def test_repeating_an_id_changes_nothing(queue: Queue) -> None:
    job = NewJob(new_job_id(), '{"first":1}')
    await queue.producer.enqueue(job)

    again = await queue.producer.enqueue(NewJob(job.job_id, '{"second":2}'))

    assert again.job_id == job.job_id
    assert await queue.waiting() == [job.job_id]
    assert await queue.field(job.job_id, "payload") == '{"first":1}'
    assert await queue.redis("GET", f"{queue.prefix}jobs:seq") == "1"


async def test_an_id_in_one_batch_twice_is_one_job(queue: Queue) -> None:
    job = NewJob(new_job_id(), "{}")
    await asyncio.gather(*(queue.producer.enqueue(job) for _ in range(8)))

    assert await queue.waiting() == [job.job_id]
    assert (await queue.results.stats()).accepted == 1
    assert await queue.redis("GET", f"{queue.prefix}jobs:seq") == "1"


async def test_a_finished_job_is_not_enqueued_again(queue: Queue) -> None:
    job = NewJob(new_job_id(), "{}")
    await queue.producer.enqueue(job)
    worker = queue.worker()
    await worker.settle([settled(one) for one in (await worker.lease(1)).jobs])

    await queue.producer.enqueue(job)

    assert await queue.waiting() == []
    assert await queue.state(job.job_id) == "done"


async def test_duplicates_and_refused_jobs_use_no_sequence_number(queue: Queue) -> None:
    first = NewJob(new_job_id(), "{}", "record", "print")
    bounded = Producer(queue.upstash, queue.settings.model_copy(update={"overload_max_queue_depth": 2}))
    await bounded.enqueue(first)

    await bounded.enqueue(first)
    await bounded.enqueue(NewJob(new_job_id(), "{}", "record", "print"))
    with pytest.raises(IdempotencyConflictError):
        await bounded.enqueue(NewJob(new_job_id(), "{}", "record", "another print"))
    second = (await bounded.enqueue(NewJob(new_job_id(), "{}"))).job_id
    with pytest.raises(QueueFullError):
        await bounded.enqueue(NewJob(new_job_id(), "{}"))
    await bounded.aclose()

    assert await queue.waiting() == [first.job_id, second]
    assert await queue.redis("GET", f"{queue.prefix}jobs:seq") == "2"


async def test_the_same_key_and_body_give_the_first_id(queue: Queue) -> None:
    first, second = [await queue.enqueue_one("{}", idempotency_record="record", fingerprint="print") for _ in range(2)]

    assert first == second
    assert await queue.waiting() == [first]


async def test_the_same_key_in_one_batch_is_one_job(queue: Queue) -> None:
    ids = await asyncio.gather(
        *(queue.enqueue_one("{}", idempotency_record="record", fingerprint="print") for _ in range(20))
    )

    assert len(set(ids)) == 1
    assert await queue.waiting() == ids[:1]


async def test_a_record_expires_with_its_job(queue: Queue) -> None:
    job_id = await queue.enqueue_one("{}", idempotency_record="record", fingerprint="print")
    record = f"{queue.prefix}idem:record"
    assert await queue.redis("TTL", record) == -1
    worker = queue.worker(queue_result_ttl=100)
    [job] = (await worker.lease(1)).jobs

    await worker.settle([settled(job)])

    assert 90 <= await queue.redis("TTL", record) <= 100
    assert 90 <= await queue.ttl(job_id) <= 100


async def test_a_bound_on_depth_is_exact_within_a_batch(queue: Queue) -> None:
    bounded = Producer(queue.upstash, queue.settings.model_copy(update={"overload_max_queue_depth": 7}))
    jobs = [NewJob(new_job_id(), "{}") for _ in range(50)]

    outcomes = await asyncio.gather(*map(bounded.enqueue, jobs), return_exceptions=True)
    await bounded.aclose()

    assert sum(isinstance(one, QueueFullError) for one in outcomes) == 43
    assert len(await queue.waiting()) == 7


async def test_a_bound_on_wait_counts_service_time(queue: Queue) -> None:
    bounds = {"overload_max_wait_s": 10.0, "worker_processing_delay": 2.0}
    bounded = Producer(queue.upstash, queue.settings.model_copy(update=bounds))
    jobs = [NewJob(new_job_id(), "{}") for _ in range(20)]

    outcomes = await asyncio.gather(*map(bounded.enqueue, jobs), return_exceptions=True)
    await bounded.aclose()

    refused = [one for one in outcomes if isinstance(one, QueueFullError)]
    assert len(await queue.waiting()) == 5
    assert {one.retry_after_s for one in refused} == {10.0}


async def test_a_large_batch_is_one_exchange(queue: Queue) -> None:
    await queue.enqueue(1)
    before = queue.upstash.calls

    ids = await asyncio.gather(*(queue.enqueue_one("{}") for _ in range(250)))

    assert queue.upstash.calls - before <= 4
    assert set(ids) <= set(await queue.waiting())


async def test_jobs_of_one_batch_are_leased_in_order(queue: Queue) -> None:
    ids = await asyncio.gather(*(queue.enqueue_one("{}") for _ in range(40)))

    leased = ids_of((await queue.worker().lease(40)).jobs)

    # two batches under way at once may arrive in either order
    assert leased in (ids, ids[20:] + ids[:20])


async def test_two_prefixes_are_separate_queues(
    queue: Queue, queue_parts: tuple[Store, type[Upstash]], tmp_path: Path
) -> None:
    [job_id] = await queue.enqueue(1)
    async with open_queue(make_settings(tmp_path), *queue_parts) as other:
        assert await other.waiting() == []
        assert await other.status(job_id) is None
        assert (await other.worker().lease(5)).jobs == []
        assert (await other.results.stats()).accepted == 0
    assert await queue.waiting() == [job_id]


async def test_nothing_is_written_outside_the_prefix(queue: Queue) -> None:
    outside = set(await queue.redis("KEYS", "*")) - set(await queue.redis("KEYS", f"{queue.prefix}*"))
    await queue.enqueue_one("{}", idempotency_record="record", fingerprint="print")
    worker = queue.worker()
    jobs = (await worker.lease(1)).jobs
    await worker.extend(jobs)
    await worker.settle([settled(job) for job in jobs])
    await queue.results.stats()

    assert set(await queue.redis("KEYS", "*")) - set(await queue.redis("KEYS", f"{queue.prefix}*")) <= outside


async def test_a_list_of_another_type_is_an_error_and_stores_no_part_of_a_job(queue: Queue) -> None:
    await queue.redis("SET", f"{queue.prefix}jobs:queue", "foreign")
    job = NewJob(new_job_id(), "{}")

    with pytest.raises(StoreRefusedError):
        await queue.producer.enqueue(job)

    assert await queue.redis("EXISTS", f"{queue.prefix}job:{job.job_id}") == 0
