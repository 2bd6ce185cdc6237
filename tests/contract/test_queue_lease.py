"""Lease: every job is waiting or leased, never in between; jobs of a dead worker return, in order."""

import asyncio
import json

import pytest

from overload_demo.queue.consumer import MAX_LEASE_BYTES, LeaseEnd
from overload_demo.queue.protocol import LEASE, Protocol
from tests.support.queues import Queue, ids_of, settled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio


async def test_jobs_are_leased_from_the_head_in_order(queue: Queue) -> None:
    ids = await queue.enqueue(5)

    lease = await queue.worker().lease(3)

    assert ids_of(lease.jobs) == ids[:3]
    assert (lease.queue_length, lease.in_flight) == (2, 3)
    assert [job.attempt for job in lease.jobs] == [1, 1, 1]
    assert await queue.waiting() == ids[3:]
    assert [await queue.state(one) for one in ids] == ["processing"] * 3 + ["queued"] * 2


async def test_an_empty_queue_leases_nothing(queue: Queue) -> None:
    assert (await queue.worker().lease(5)).jobs == []


async def test_no_job_is_leased_to_two_workers(queue: Queue) -> None:
    ids = await queue.enqueue(6)

    first, second = await queue.worker("a").lease(4), await queue.worker("b").lease(4)

    assert ids_of(first.jobs) + ids_of(second.jobs) == ids
    assert first.jobs[0].fence != second.jobs[0].fence


async def test_large_leases_are_in_order_when_their_replies_are_lost(queue: Queue) -> None:
    """So many that the store no longer keeps the order of the owners."""
    await asyncio.gather(*(queue.enqueue_one() for _ in range(300)))
    ids = await queue.waiting()  # two calls under way at once may arrive in either order

    leased = [await queue.worker(name).lease(100) for name in "abc"]

    assert [ids_of(lease.jobs) for lease in leased] == [ids[:100], ids[100:200], ids[200:]]


async def test_a_lease_ends_at_its_bound_of_bytes_but_has_at_least_one_job(queue: Queue) -> None:
    ids = await queue.enqueue(4, '"' + "x" * (MAX_LEASE_BYTES // 2) + '"')

    assert ids_of((await queue.worker("a").lease(10)).jobs) == ids[:1]
    assert ids_of((await queue.worker("b").lease(10)).jobs) == ids[1:2]


async def test_a_lease_has_at_most_the_largest_batch(queue: Queue) -> None:
    await queue.enqueue(6)

    assert len((await queue.worker(worker_max_batch=4).lease(100)).jobs) == 4


async def test_expired_leases_return_to_the_head_in_order(queue: Queue) -> None:
    ids = await queue.enqueue(6)
    await queue.worker("dead", worker_lease_s=1.0).lease(4)
    alive = queue.worker("alive")

    await wait_until_async("the lease is over", lambda: _returns_all(queue, alive, ids))

    assert (await queue.results.stats()).interrupted == 4


async def _returns_all(queue: Queue, worker: object, ids: list[str]) -> bool:
    """A lease call returns the four and leases the first of them alone, because it was interrupted before."""
    lease = await worker.lease(1)  # type: ignore[attr-defined]
    if ids_of(lease.jobs) == ids[4:5]:  # the lease had not expired
        await worker.settle([settled(lease.jobs[0], LeaseEnd.RELEASED)])  # type: ignore[attr-defined]
        return False
    assert ids_of(lease.jobs) == ids[:1]
    assert lease.jobs[0].attempt == 2
    assert await queue.waiting() == ids[1:]
    return True


async def test_an_extended_lease_does_not_expire(queue: Queue) -> None:
    await queue.enqueue(1)
    worker = queue.worker("a")
    jobs = (await worker.lease(1)).jobs
    await queue.expire_lease(jobs[0].job_id)

    lost = await worker.extend(jobs)

    assert lost == set()
    assert (await queue.worker("b").lease(1)).jobs == []


async def test_extend_reports_a_lost_lease_and_does_not_take_it_back(queue: Queue) -> None:
    await queue.enqueue(2)
    late, quick = queue.worker("late"), queue.worker("quick")
    jobs = (await late.lease(2)).jobs
    await queue.expire_lease(jobs[0].job_id)
    await quick.lease(1)

    assert await late.extend(jobs) == {jobs[0].job_id}


async def test_the_jobs_of_a_dead_predecessor_return_at_once(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    await queue.worker("w/1").lease(2)
    await queue.worker("other/1").lease(1)

    again = await queue.worker("w/2", predecessors=["w/0", "w/1"]).lease(5)

    assert ids_of(again.jobs) == ids[:1]
    assert again.jobs[0].attempt == 2
    assert await queue.waiting() == ids[1:2]
    assert (await queue.results.stats()).workers_alive == 2


async def test_an_interrupted_job_is_leased_alone(queue: Queue) -> None:
    ids = await queue.enqueue(5)
    await queue.worker("dead").lease(2)
    await queue.expire_lease(*ids[:2])
    alive = queue.worker("alive")

    leases = [ids_of((await alive.lease(5)).jobs) for _ in range(4)]

    assert leases == [ids[:1], ids[1:2], ids[2:], []]


async def test_a_new_job_is_not_leased_with_an_interrupted_one_behind_it(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    worker = queue.worker()
    first, second = (await worker.lease(2)).jobs
    await queue.expire_lease(second.job_id)
    await queue.worker("other").lease(1)
    await queue.redis("LPUSH", f"{queue.prefix}jobs:queue", first.job_id)
    await worker.settle([settled(first, LeaseEnd.RELEASED)])

    assert ids[0] in ids_of((await queue.worker("third").lease(5)).jobs)


async def test_a_job_without_attempts_left_becomes_a_dead_letter(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    for attempt in (1, 2, 3):
        [job] = (await queue.worker(f"w{attempt}").lease(1)).jobs
        assert (job.job_id, job.attempt) == (ids[0], attempt)
        await queue.expire_lease(ids[0])

    assert ids_of((await queue.worker().lease(5)).jobs) == ids[1:]
    assert await queue.state(ids[0]) == "failed"
    [letter] = await queue.dead_letters()
    assert letter["job_id"] == ids[0]
    assert "interrupted 3 times" in letter["reason"]
    stats = await queue.results.stats()
    assert (stats.dead, stats.failed) == (1, 1)


async def test_released_jobs_return_in_order_and_their_attempt_is_refunded(queue: Queue) -> None:
    ids = await queue.enqueue(5)
    worker = queue.worker()
    for _ in range(5):
        jobs = (await worker.lease(4)).jobs
        assert ids_of(jobs) == ids[:4]
        assert {job.attempt for job in jobs} == {1}
        await worker.settle([settled(job, LeaseEnd.RELEASED) for job in jobs])
        assert await queue.waiting() == ids

    assert await queue.state(ids[0]) == "queued"


async def test_hundreds_of_expired_leases_all_return(queue: Queue) -> None:
    ids = await queue.enqueue(120)
    await queue.worker("dead").lease(120)
    await queue.expire_lease(*ids)

    [job] = (await queue.worker("alive").lease(1)).jobs

    assert [job.job_id, *await queue.waiting()] == ids


async def test_one_lease_call_returns_a_bounded_number_of_expired_leases(queue: Queue) -> None:
    ids = await asyncio.gather(*(queue.enqueue_one() for _ in range(360)))
    for name in ("a", "b", "c"):
        assert len((await queue.worker(name).lease(120)).jobs) == 120
    await queue.expire_lease(*ids)
    alive = queue.worker("alive")

    [first] = (await alive.lease(1)).jobs
    waiting = await queue.waiting()
    [second] = (await alive.lease(1)).jobs

    assert len(waiting) == 299
    assert {first.job_id, second.job_id, *await queue.waiting()} == set(ids)


async def test_a_heartbeat_is_counted_and_removed(queue: Queue) -> None:
    worker = queue.worker()
    await worker.lease(1)
    assert (await queue.results.stats()).workers_alive == 1
    await worker.extend([])

    await worker.leave()

    assert (await queue.results.stats()).workers_alive == 0


async def test_expired_heartbeats_are_removed_by_a_few_lease_calls(queue: Queue) -> None:
    dead = [text for number in range(300) for text in (f"dead/{number}", f"{1_700_000_000_000 + number} token 5")]
    await queue.redis("HSET", f"{queue.prefix}jobs:workers", *dead)
    workers = [queue.worker("a/1"), queue.worker("b/1")]

    for _ in range(10):
        for worker in workers:
            await worker.lease(1)

    assert sorted(await queue.redis("HKEYS", f"{queue.prefix}jobs:workers")) == ["a/1", "b/1"]
    assert (await queue.results.stats()).workers_alive == 2


async def test_two_live_workers_with_one_name_run_no_job_twice(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    first, second = queue.worker("worker/1"), queue.worker("worker/2")
    [job] = (await first.lease(1)).jobs

    assert (await second.lease(1)).jobs == []

    assert await first.settle([settled(job)]) == 0
    assert await queue.state(job_id) == "done"


async def test_a_late_result_does_not_change_a_job_dead_by_expired_leases(queue: Queue) -> None:
    """Write-once: a client may have read that it failed."""
    [job_id] = await queue.enqueue(1)
    late = queue.worker("late", worker_max_attempts=1)
    [job] = (await late.lease(1)).jobs
    await queue.expire_lease(job_id)
    await queue.worker("other", worker_max_attempts=1).lease(1)

    assert await late.settle([settled(job)]) == 1

    assert await queue.state(job_id) == "failed"
    assert [letter["job_id"] for letter in await queue.dead_letters()] == [job_id]


async def test_a_job_twice_in_the_list_is_leased_once(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    await queue.redis("RPUSH", f"{queue.prefix}jobs:queue", ids[0])

    assert ids_of((await queue.worker().lease(5)).jobs) == ids


async def test_a_lease_call_over_the_worst_store_changes_at_most_1000_jobs(queue: Queue) -> None:
    """Expired leases at their last attempt, entries without a state, and as many old dead letters as they push out."""
    prefix, now = queue.prefix, "2026-01-01T00:00:00Z"

    async def store(name: str, count: int, *fields: object) -> list[str]:
        ids = [f"{name}{number}" for number in range(count)]
        for at in range(0, count, 200):
            await queue.upstash.pipeline([("HSET", f"{prefix}job:{one}", *fields) for one in ids[at : at + 200]])
        return ids

    old = await store("old", 1_000, "status", "failed")
    leased = await store("leased", 400, "status", "processing", "attempts", 3)
    odd = await store("odd", 400, "status", "strange")
    await queue.redis("RPUSH", f"{prefix}jobs:dead", *(json.dumps({"job_id": one}) for one in old))
    await queue.redis("ZADD", f"{prefix}jobs:leases", *(part for one in leased for part in (1, one)))
    await queue.redis("HSET", f"{prefix}jobs:owners", *(part for one in leased for part in (one, f"1 other t {one}")))
    await queue.redis("RPUSH", f"{prefix}jobs:queue", *odd)
    most_dead, limits = len(old), (30_000, 99, MAX_LEASE_BYTES, 3)
    await queue.upstash.run(
        Protocol(prefix).call(LEASE, prefix, "w", "token", *limits, now, "", 1, 60, most_dead, 0, "")
    )

    gone = [await queue.ttl(one) > 0 for one in old]
    failed = [await queue.field(one, "status") == "failed" for one in [*leased, *odd]]
    assert 900 < sum(gone) + sum(failed) <= 1_000
