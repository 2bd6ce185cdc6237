"""Settle: fenced, write-once, safe to repeat; a finished job expires, a waiting one never does."""

import json

import pytest

from overload_demo.queue.consumer import LeaseEnd
from tests.support.queues import END, START, Queue, ids_of, settled

pytestmark = pytest.mark.anyio


async def test_a_result_is_stored_and_its_lease_removed(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    worker = queue.worker()
    [job] = (await worker.lease(1)).jobs

    assert await worker.settle([settled(job, text='{"answer":42}')]) == 0

    status = await queue.status(job_id)
    assert status is not None
    assert (status.state, status.result) == ("done", {"answer": 42})
    assert [await queue.field(job_id, name) for name in ("started_at", "completed_at")] == [START, END]
    stats = await queue.results.stats()
    assert (stats.done, stats.in_flight, stats.queue_length) == (1, 0, 0)


async def test_each_verdict_has_its_state_and_count(queue: Queue) -> None:
    ids = await queue.enqueue(4)
    worker = queue.worker()
    jobs = (await worker.lease(4)).jobs
    verdicts = (LeaseEnd.DONE, LeaseEnd.FAILED, LeaseEnd.DEAD, LeaseEnd.RELEASED)

    await worker.settle([settled(job, verdict, '"why"') for job, verdict in zip(jobs, verdicts, strict=True)])

    assert [await queue.state(one) for one in ids] == ["done", "failed", "failed", "queued"]
    stats = await queue.results.stats()
    assert (stats.done, stats.failed, stats.dead) == (1, 2, 1)
    assert await queue.waiting() == ids[3:]
    assert [letter["job_id"] for letter in await queue.dead_letters()] == [ids[2]]


async def test_a_late_worker_changes_nothing(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    late, quick = queue.worker("late"), queue.worker("quick")
    [old] = (await late.lease(1)).jobs
    await queue.expire_lease(job_id)
    [new] = (await quick.lease(1)).jobs

    for verdict in LeaseEnd:
        assert await late.settle([settled(old, verdict, '"late"')]) == 1
    assert await queue.state(job_id) == "processing"
    assert await quick.settle([settled(new, text='"quick"')]) == 0
    for verdict in LeaseEnd:
        assert await late.settle([settled(old, verdict, '"late"')]) == 1

    status = await queue.status(job_id)
    assert status is not None
    assert status.result == "quick"
    assert await queue.waiting() == []
    assert (await queue.results.stats()).done == 1


async def test_a_result_after_the_lease_expired_is_reported_as_fenced(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    late = queue.worker("late")
    jobs = (await late.lease(2)).jobs
    await queue.expire_lease(*ids)
    await queue.worker("other").lease(1)

    assert await late.settle([settled(jobs[1])]) == 1

    assert await queue.state(ids[1]) == "queued"


async def test_a_result_after_the_job_became_dead_is_reported_as_fenced(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    late = queue.worker("late", worker_max_attempts=1)
    [job] = (await late.lease(1)).jobs
    await queue.expire_lease(job_id)
    await queue.worker("other", worker_max_attempts=1).lease(1)

    fenced = [await late.settle([settled(job, verdict)]) for verdict in LeaseEnd]

    assert fenced == [1] * len(LeaseEnd)
    assert await queue.state(job_id) == "failed"


async def test_a_result_is_written_once(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    worker = queue.worker()
    [job] = (await worker.lease(1)).jobs
    await worker.settle([settled(job, text='"first"')])

    assert await worker.settle([settled(job, text='"first"')]) == 0, "a repeat of what it settled"
    for other in (settled(job, text='"second"'), settled(job, LeaseEnd.FAILED, '"second"')):
        assert await worker.settle([other]) == 1, "another result"

    status = await queue.status(job_id)
    assert status is not None
    assert (status.state, status.result) == ("done", "first")
    assert (await queue.results.stats()).failed == 0


async def test_only_a_finished_job_has_a_time_to_live(queue: Queue) -> None:
    ids = await queue.enqueue(4)
    worker = queue.worker(queue_result_ttl=50)
    done, failed, dead = (await worker.lease(3)).jobs
    assert [await queue.ttl(one) for one in ids] == [-1] * 4

    await worker.settle([settled(done), settled(failed, LeaseEnd.FAILED, "x"), settled(dead, LeaseEnd.DEAD, "x")])

    ttls = [await queue.ttl(one) for one in ids]
    assert all(0 < ttl <= 50 for ttl in ttls[:2])
    assert ttls[2:] == [-1, -1], "a dead job has no time to live"


async def test_settling_and_leasing_take_one_exchange(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    worker = queue.worker()
    jobs = (await worker.lease(1)).jobs
    before = queue.upstash.calls

    fenced, lease = await worker.settle_and_lease([settled(job) for job in jobs], 2)

    assert fenced == 0
    assert ids_of(lease.jobs) == ids[1:]  # type: ignore[union-attr]
    assert queue.upstash.calls - before <= 2
    assert await queue.state(ids[0]) == "done"


async def test_one_lost_lease_does_not_stop_the_rest_of_its_batch(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    worker = queue.worker()
    jobs = (await worker.lease(3)).jobs
    await queue.expire_lease(ids[1])
    await queue.worker("other").lease(1)

    assert await worker.settle([settled(job) for job in jobs]) == 1

    assert [await queue.state(one) for one in ids] == ["done", "processing", "done"]


async def test_the_dead_letter_list_is_bounded_and_its_oldest_jobs_expire_with_their_records(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overload_demo.queue.consumer.MAX_DEAD_ENTRIES", 2)
    records = [f"record{number}" for number in range(4)]
    ids = [await queue.enqueue_one("{}", idempotency_record=record, fingerprint="p") for record in records]
    worker = queue.worker(queue_result_ttl=50)
    for _ in range(4):
        [job] = (await worker.lease(1)).jobs
        await worker.settle([settled(job, LeaseEnd.DEAD, "unreadable")])

    assert [letter["job_id"] for letter in await queue.dead_letters()] == ids[2:]
    assert [await queue.ttl(one) > 0 for one in ids] == [True, True, False, False]
    kept = [await queue.redis("TTL", f"{queue.prefix}idem:{record}") > 0 for record in records]
    assert kept == [True, True, False, False]


async def test_the_dead_letter_list_is_bounded_when_leases_expire(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overload_demo.queue.consumer.MAX_DEAD_ENTRIES", 2)
    ids = await queue.enqueue(4)
    await queue.worker("dead", worker_max_attempts=1).lease(4)
    await queue.expire_lease(*ids)

    await queue.worker("alive", worker_max_attempts=1).lease(1)

    kept = {letter["job_id"] for letter in await queue.dead_letters()}
    assert len(kept) == 2
    assert {one for one in ids if await queue.ttl(one) < 0} == kept
    assert (await queue.results.stats()).dead == 4


async def test_service_time_is_measured_from_settled_jobs(queue: Queue) -> None:
    await queue.enqueue(10)
    worker = queue.worker()
    jobs = (await worker.lease(10)).jobs
    await worker.settle([settled(job) for job in jobs])

    stats = await queue.results.stats()

    assert stats.service_time_s == pytest.approx(0.01)
    assert stats.drain_rate_per_s > 0
    numbers = {name: value for name, value in vars(stats).items() if name not in {"worker_ids", "shards"}}
    assert json.loads(json.dumps(numbers)) == numbers
