"""The operator's commands: requeue or purge dead jobs, pause and resume the queue."""

import asyncio

import pytest

from overload_demo.config import Settings
from overload_demo.errors import StoreRefusedError
from overload_demo.lab.parts import WorkerThread
from overload_demo.queue.consumer import LeaseEnd
from overload_demo.queue.maintenance import QueueAdmin
from overload_demo.store.connect import Store
from tests.support.queues import Queue, conserved, ids_of, kill_jobs, open_queue, settled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio


def admin_of(queue: Queue, **changes: object) -> QueueAdmin:
    return QueueAdmin([queue.upstash], queue.settings.model_copy(update=changes))


# --- dead letters -----------------------------------------------------------------------------------------------------


async def test_dead_jobs_are_listed_oldest_first_in_pages(queue: Queue) -> None:
    ids = await kill_jobs(queue, 3)
    await queue.redis("RPUSH", f"{queue.prefix}jobs:dead", "not json", "[1]")
    await queue.redis("RPUSH", f"{queue.prefix}jobs:dead", *["{}"] * 600)
    admin = admin_of(queue)

    letters = await admin.dead_letters()

    assert [letter.job_id for letter in letters[:5]] == [*ids, "", ""]
    assert len(letters) == 605
    assert letters[0].reason == "no good"
    assert [letter.job_id for letter in await admin.dead_letters(2)] == ids[:2]


async def test_a_requeued_job_waits_at_the_tail_like_a_new_one(queue: Queue) -> None:
    [poison] = await queue.enqueue(1)
    for attempt in (1, 2, 3):
        await queue.worker(f"w{attempt}").lease(1)
        await queue.expire_lease(poison)
    await queue.worker().lease(1)
    others = await queue.enqueue(2)
    admin = admin_of(queue)
    letters = await admin.dead_letters()

    assert await admin.requeue(letters) == ["queued"]

    assert await queue.waiting() == [*others, poison]
    status = await queue.status(poison)
    assert status is not None
    assert (status.state, status.queue_position, status.error) == ("queued", 3, "")
    assert await queue.dead_letters() == []
    assert await conserved(queue)
    leased = (await queue.worker("last").lease(10)).jobs
    assert [(job.job_id, job.attempt) for job in leased] == [(one, 1) for one in (*others, poison)]


async def test_repeating_a_requeue_changes_nothing(queue: Queue) -> None:
    [job_id] = await kill_jobs(queue, 1)
    admin = admin_of(queue)
    letters = await admin.dead_letters()

    assert [await admin.requeue(letters) for _ in range(2)] == [["queued"]] * 2

    assert await queue.waiting() == [job_id]
    [job] = (await queue.worker().lease(1)).jobs
    assert await admin.requeue(letters) == ["processing"]
    await queue.worker().settle([settled(job)])


async def test_a_job_without_a_payload_stays_a_dead_letter(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    await queue.redis("DEL", f"{queue.prefix}job:{ids[0]}")
    await queue.redis("SET", f"{queue.prefix}job:{ids[1]}", "not a hash")
    await queue.worker().lease(5)
    admin = admin_of(queue)
    letters = await admin.dead_letters()

    assert await admin.requeue(letters) == ["no payload"] * 2

    assert [letter["job_id"] for letter in await queue.dead_letters()] == ids


async def test_a_requeue_onto_a_list_of_another_type_changes_nothing(queue: Queue) -> None:
    ids = await kill_jobs(queue, 1)
    await queue.redis("SET", f"{queue.prefix}jobs:queue", "foreign")

    with pytest.raises(StoreRefusedError):
        await admin_of(queue).requeue(await admin_of(queue).dead_letters())

    assert [letter["job_id"] for letter in await queue.dead_letters()] == ids
    assert await queue.field(ids[0], "status") == "failed"


async def test_hundreds_of_dead_jobs_are_requeued_in_order(queue: Queue) -> None:
    ids = await kill_jobs(queue, 250)
    admin = admin_of(queue)

    assert set(await admin.requeue(await admin.dead_letters())) == {"queued"}

    assert await queue.waiting() == ids
    assert await conserved(queue)


async def test_a_purged_job_expires_like_any_finished_job(queue: Queue) -> None:
    job_id = await queue.enqueue_one("{}", idempotency_record="record", fingerprint="print")
    worker = queue.worker()
    await worker.settle([settled(job, LeaseEnd.DEAD, "no good") for job in (await worker.lease(1)).jobs])
    await queue.redis("RPUSH", f"{queue.prefix}jobs:dead", "not json")
    admin = admin_of(queue, queue_result_ttl=100)

    await admin.purge(await admin.dead_letters())

    assert await queue.redis("LLEN", f"{queue.prefix}jobs:dead") == 0
    assert 90 <= await queue.ttl(job_id) <= 100
    assert 90 <= await queue.redis("TTL", f"{queue.prefix}idem:record") <= 100
    assert await queue.state(job_id) == "failed"


async def test_a_purge_does_not_change_a_job_requeued_meanwhile(queue: Queue) -> None:
    [job_id] = await kill_jobs(queue, 1)
    admin = admin_of(queue)
    letters = await admin.dead_letters()
    await admin.requeue(letters)

    await admin.purge(letters)

    assert (await queue.state(job_id), await queue.ttl(job_id)) == ("queued", -1)


# --- pause ------------------------------------------------------------------------------------------------------------


async def test_a_paused_queue_leases_nothing_but_accepts_and_settles_jobs(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    worker, admin = queue.worker(), admin_of(queue)
    [running] = (await worker.lease(1)).jobs
    await admin.pause()

    ids += await queue.enqueue(1)
    lease = await worker.lease(5)
    assert (lease.jobs, lease.paused, lease.again, lease.queue_length) == ([], True, False, 2)
    assert await worker.extend([running]) == set()
    assert await worker.settle([settled(running)]) == 0
    assert (await queue.results.stats()).paused

    await admin.resume()
    assert ids_of((await worker.lease(5)).jobs) == ids[1:]
    assert not (await queue.results.stats()).paused


async def test_expired_leases_return_while_the_queue_is_paused(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    await queue.worker("dead").lease(1)
    await queue.expire_lease(ids[0])
    await admin_of(queue).pause()

    assert (await queue.worker("alive").lease(5)).jobs == []

    assert await queue.waiting() == ids


async def test_a_worker_logs_a_pause_once_and_is_woken_by_the_resume(
    settings: Settings, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the wake-up, the next poll would be an hour later."""
    slow = settings.model_copy(update={"worker_poll_interval": 3600.0, "worker_max_poll_interval": 3600.0})
    async with open_queue(slow, store) as queue:
        admin = admin_of(queue)
        await admin.pause()
        worker = WorkerThread(slow, store)
        with caplog.at_level("INFO", "overload_demo.worker"):
            worker.start()
            try:
                [job_id] = await queue.enqueue(1)
                await wait_until_async("it has logged it", lambda: has_logged(caplog, "is paused"))
                calls = (await queue.results.stats()).worker_rest_calls
                await wait_until_async("it looks again", lambda: has_called_since(queue, calls))
                assert await queue.state(job_id) == "queued"
                await admin.resume()
                await wait_until_async("the job is done", lambda: is_done(queue, job_id))
            finally:
                await asyncio.to_thread(worker.stop)

    messages = [record.message for record in caplog.records if "the queue" in record.message]
    assert messages == ["the queue is paused, waiting", "the queue is resumed"]


async def has_logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return any(text in record.message for record in caplog.records)


async def has_called_since(queue: Queue, calls: int) -> bool:
    """Wake the worker by hand, and look whether it has sent ten more requests."""
    await queue.redis("PUBLISH", f"{queue.prefix}jobs:wake", "")
    return (await queue.results.stats()).worker_rest_calls > calls + 10


async def is_done(queue: Queue, job_id: str) -> bool:
    return await queue.state(job_id) == "done"
