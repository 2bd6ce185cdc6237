"""Deadlines: a job that has not started in time never runs, and expires like any finished job."""

import json

import pytest

from overload_demo.config import Settings
from overload_demo.jobs import new_job_id
from overload_demo.queue.consumer import LeaseEnd
from overload_demo.queue.producer import NewJob
from overload_demo.store.connect import Store
from tests.http.test_direct import DIRECT, ORDINARY
from tests.support.queues import Queue, ids_of, settled
from tests.support.running import JOB, serving_api
from tests.support.stores import in_store

pytestmark = pytest.mark.anyio


async def test_the_deadline_is_by_the_stores_clock(queue: Queue) -> None:
    seconds, micros = map(int, await queue.redis("TIME"))
    job_id = (await queue.producer.enqueue(NewJob(new_job_id(), "{}", expires_in_s=100))).job_id

    start_by_ms, given_s = (await queue.field(job_id, "start_by")).split()

    assert given_s == "100"
    assert 100_000 <= int(start_by_ms) - (seconds * 1000 + micros // 1000) <= 130_000


async def test_a_job_within_its_deadline_runs(queue: Queue) -> None:
    job_id = (await queue.producer.enqueue(NewJob(new_job_id(), "{}", expires_in_s=3600.5))).job_id

    assert ids_of((await queue.worker().lease(5)).jobs) == [job_id]


async def test_a_job_past_its_deadline_fails_without_running(queue: Queue) -> None:
    ids = await queue.enqueue(4)
    late = [ids[0], ids[2]]
    await queue.pass_deadline(*late)

    lease = await queue.worker(queue_result_ttl=100).lease(10)

    assert ids_of(lease.jobs) == [ids[1], ids[3]]
    for job_id in late:
        status = await queue.status(job_id)
        assert status is not None
        assert (status.state, status.error) == ("failed", "expired: not started within 2.5 s")
        assert 90 <= await queue.ttl(job_id) <= 100
    stats = await queue.results.stats()
    assert (stats.expired, stats.failed, stats.dead, stats.dead_letters, stats.queue_length) == (2, 2, 0, 0, 0)


async def test_its_idempotency_record_expires_with_it(queue: Queue) -> None:
    job = NewJob(new_job_id(), "{}", "record", "print", expires_in_s=1)
    await queue.producer.enqueue(job)
    await queue.pass_deadline(job.job_id)

    await queue.worker(queue_result_ttl=100).lease(1)

    assert 90 <= await queue.redis("TTL", f"{queue.prefix}idem:record") <= 100


async def test_a_late_job_is_queued_until_a_lease_reaches_it(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    await queue.pass_deadline(job_id)

    assert await queue.state(job_id) == "queued"


async def test_a_released_job_keeps_its_deadline(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    worker = queue.worker()
    await worker.settle([settled(job, LeaseEnd.RELEASED) for job in (await worker.lease(1)).jobs])
    await queue.pass_deadline(job_id)

    assert (await worker.lease(1)).jobs == []
    assert await queue.state(job_id) == "failed"


async def test_an_interrupted_job_runs_again_after_its_deadline(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    await queue.worker("dead").lease(1)
    await queue.expire_lease(job_id)
    await queue.pass_deadline(job_id)

    assert ids_of((await queue.worker("alive").lease(1)).jobs) == [job_id]


async def test_a_job_behind_many_expired_ones_is_found(queue: Queue) -> None:
    ids = await queue.enqueue(50)
    await queue.pass_deadline(*ids[:-1])

    assert ids_of((await queue.worker().lease(1)).jobs) == ids[-1:]


@pytest.mark.parametrize("garbage", ["", "soon", "-1 x", "99999999999999999999"])
async def test_a_malformed_deadline_counts_as_none(queue: Queue, garbage: str) -> None:
    [job_id] = await queue.enqueue(1)
    await queue.redis("HSET", f"{queue.prefix}job:{job_id}", "start_by", garbage)

    assert ids_of((await queue.worker().lease(1)).jobs) == [job_id]


def test_both_kinds_of_body_store_the_deadline_and_no_other_option(settings: Settings, store: Store) -> None:
    with serving_api(settings, store) as client:
        for media_type in (DIRECT, ORDINARY):
            for fields in ({"expires_in_s": 1000}, {}):
                client.post("/jobs", content=json.dumps(JOB | fields), headers={"Content-Type": media_type})

    jobs, _ = in_store(settings, store)
    optional = [sorted(job.keys() - {"job_id", "payload", "status", "created_at", "seq"}) for job in jobs.values()]
    assert sorted(optional) == [[], [], ["start_by"], ["start_by"]]
