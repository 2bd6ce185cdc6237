"""Repair after a failover that lost keys: every job has its place again, and the counters are correct."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from overload_demo.lab.parts import WorkerThread
from overload_demo.queue.consumer import LeaseEnd
from overload_demo.queue.maintenance import QueueAdmin, QueueRepair
from overload_demo.queue.protocol import RECONCILE, Protocol
from overload_demo.rest import Argument
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import Store
from tests.support.cases import plain_first
from tests.support.queues import Queue, Repeating, conserved, kill_jobs, open_queue, settled
from tests.support.running import events, make_settings
from tests.support.stores import Rest
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio


def admin_of(queue: Queue, **changes: object) -> QueueAdmin:
    return QueueAdmin([queue.upstash], queue.settings.model_copy(update=changes))


async def reconcile(queue: Queue) -> Counter[str]:
    return await QueueRepair(queue.upstash, queue.settings).run()


async def everything(queue: Queue) -> dict[str, str]:
    """All keys and their contents."""
    keys = sorted(await queue.redis("KEYS", f"{queue.prefix}*"))
    return {key: await queue.redis("DUMP", key) for key in keys}


async def test_a_repair_changes_nothing_in_a_healthy_store(queue: Queue) -> None:
    ids = await queue.enqueue(12)
    worker = queue.worker()
    jobs = (await worker.lease(6)).jobs
    verdicts = (LeaseEnd.DONE, LeaseEnd.FAILED, LeaseEnd.DEAD, LeaseEnd.RELEASED)
    await worker.settle([settled(job, verdict) for job, verdict in zip(jobs, verdicts, strict=False)])
    await queue.producer.cancel(ids[8])
    await queue.producer.cancel(ids[11])
    before = await everything(queue)

    assert await reconcile(queue) == Counter()

    assert await everything(queue) == before


async def test_an_empty_store_needs_no_repair(queue: Queue) -> None:
    assert await reconcile(queue) == Counter()
    assert await everything(queue) == {}


async def test_jobs_of_a_lost_list_wait_again(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    await queue.redis("DEL", f"{queue.prefix}jobs:queue")

    assert await reconcile(queue) == Counter(queued=3)

    assert set(await queue.waiting()) == set(ids)
    positions = [status.queue_position for status in await queue.results.statuses(await queue.waiting()) if status]
    assert positions == [1, 2, 3]
    assert await reconcile(queue) == Counter()


async def test_a_lost_entry_in_the_middle_goes_to_the_tail(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    await queue.redis("LREM", f"{queue.prefix}jobs:queue", 1, ids[1])

    assert await reconcile(queue) == Counter(queued=1)

    assert await queue.waiting() == [ids[0], ids[2], ids[1]]


async def test_a_running_job_with_a_lost_lease_returns(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    await queue.worker("dead").lease(1)
    await queue.redis("DEL", f"{queue.prefix}jobs:leases", f"{queue.prefix}jobs:owners")

    assert await reconcile(queue) == Counter(leased=1)

    await queue.expire_lease(job_id)
    [job] = (await queue.worker("alive").lease(1)).jobs
    assert (job.job_id, job.attempt) == (job_id, 2)


async def test_a_running_job_with_a_lost_lease_may_be_settled_by_its_worker(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    worker = queue.worker()
    jobs = (await worker.lease(1)).jobs
    await queue.redis("DEL", f"{queue.prefix}jobs:leases")
    await reconcile(queue)

    assert await worker.extend(jobs) == set()
    assert await worker.settle([settled(jobs[0])]) == 0

    assert await queue.state(job_id) == "done"
    assert (await queue.results.stats()).in_flight == 0


async def test_leases_and_owners_without_a_running_job_are_removed(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    await queue.worker().lease(1)
    await queue.redis("DEL", f"{queue.prefix}job:{ids[0]}")
    await queue.redis("ZADD", f"{queue.prefix}jobs:leases", 1, ids[1])
    await queue.redis("HSET", f"{queue.prefix}jobs:owners", ids[2], "7 w t")

    mended = await reconcile(queue)

    assert type(queue.upstash) is Repeating or mended == Counter(freed=3)
    assert await queue.redis("EXISTS", f"{queue.prefix}jobs:leases", f"{queue.prefix}jobs:owners") == 0
    assert await queue.waiting() == ids[1:]


async def test_lost_counters_are_raised_above_the_jobs(queue: Queue) -> None:
    ids = await queue.enqueue(4)
    await queue.worker().lease(1)
    await queue.producer.cancel(ids[3])
    await queue.redis("DEL", f"{queue.prefix}jobs:seq", f"{queue.prefix}jobs:stats")

    await reconcile(queue)

    assert await queue.redis("GET", f"{queue.prefix}jobs:seq") == "4"
    assert await queue.redis("HMGET", f"{queue.prefix}jobs:stats", "fence", "tombstones") == ["1", "1"]
    assert await reconcile(queue) == Counter()


async def test_stored_garbage_raises_no_counter_out_of_range(queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    await queue.redis("HSET", f"{queue.prefix}job:{job_id}", "seq", "9" * 30, "fence", "-1e9")

    await reconcile(queue)

    assert await queue.redis("GET", f"{queue.prefix}jobs:seq") == "1"
    await queue.enqueue(1)


async def test_a_wrong_count_of_cancelled_jobs_is_corrected(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    await queue.producer.cancel(ids[0])
    await queue.redis("HINCRBY", f"{queue.prefix}jobs:stats", "tombstones", -3)

    mended = await reconcile(queue)

    assert type(queue.upstash) is Repeating or mended == Counter(tombstones=1)
    assert (await queue.results.stats()).queue_length == 2


async def test_a_cancelled_job_missing_from_the_list_expires(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    await queue.producer.cancel(ids[0])
    await queue.redis("LPOP", f"{queue.prefix}jobs:queue")

    await reconcile(queue)

    assert await queue.ttl(ids[0]) > 0
    assert (await queue.results.stats()).queue_length == 1
    assert await reconcile(queue) == Counter()


async def test_a_prefix_with_wildcards_is_taken_literally(tmp_path: Path, store: Store) -> None:
    async with open_queue(make_settings(tmp_path), store) as plain:
        async with open_queue(make_settings(tmp_path, overload_key_prefix=f"{plain.prefix}[a*"), store) as odd:
            odd.prefix = odd.settings.overload_key_prefix
            await odd.enqueue(2)
            await odd.redis("DEL", f"{odd.prefix}jobs:queue")
            assert await reconcile(odd) == Counter(queued=2)
            for key in [f"{odd.prefix}job:{one}" for one in await odd.waiting()]:
                await odd.redis("DEL", key)
            await odd.redis("DEL", f"{odd.prefix}jobs:queue", f"{odd.prefix}jobs:seq", f"{odd.prefix}jobs:stats")


async def test_a_repair_leaves_moving_jobs_alone(tmp_path: Path, store: Store) -> None:
    """Repairs run in a loop while jobs are enqueued, cancelled, leased, released and done; each job runs once."""
    settings = make_settings(tmp_path)
    async with open_queue(settings, store) as queue:
        workers = [WorkerThread(settings.model_copy(update={"worker_id": f"w{number}"}), store) for number in range(2)]
        for worker in workers:
            worker.start()
        mended: Counter[str] = Counter()
        try:
            ids: list[str] = []
            for _ in range(15):
                more, found = await asyncio.gather(
                    asyncio.gather(*(queue.enqueue_one() for _ in range(100))), reconcile(queue)
                )
                ids += more
                mended += found
                cancels = asyncio.gather(*map(queue.producer.cancel, more[::7]))
                mended += (await asyncio.gather(cancels, reconcile(queue)))[1]
            await wait_until_async("all is over", lambda: is_over(queue))
        finally:
            await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in workers))

        assert mended == Counter()
        assert await conserved(queue)
    starts = Counter(job_id for what, job_id, _ in events(tmp_path) if what == "start")
    assert set(starts.values()) == {1}


async def test_a_job_that_moved_after_it_was_read_is_not_changed(queue: Queue) -> None:
    """The script checks again: a later fence or seq shows that the job had a place."""
    ids = await queue.enqueue(2)
    await release_two(queue)
    await queue.worker("holder").lease(1)

    call = Protocol(queue.prefix).call(RECONCILE, queue.prefix, 2, 0, 1000, 1000, ids[0], "0", ids[1], "0")

    assert await queue.upstash.run(call) == ["", ""]
    assert await queue.waiting() == ids[1:]


class Interrupted(Upstash):
    """A transport that runs an event before its ``moment``-th command."""

    def __init__(self, queue: Queue, moment: int, happen: Callable[[], Awaitable[object]]) -> None:
        super().__init__(queue.upstash.address)
        self._moment, self._happen = moment, happen
        self.commands = 0

    async def command(self, *command: Argument, repeatable: bool = False, **limits: float | None) -> Any:
        self.commands += 1
        if self.commands == self._moment:
            await self._happen()
        return await super().command(*command, repeatable=repeatable, **limits)


async def release_two(queue: Queue) -> None:
    """Two waiting jobs are leased and released."""
    worker = queue.worker("x")
    await worker.settle([settled(job, LeaseEnd.RELEASED) for job in (await worker.lease(2)).jobs])


async def expire_leases(queue: Queue) -> None:
    """Expired leases return to the head."""
    await queue.expire_lease(*await queue.redis("ZRANGE", f"{queue.prefix}jobs:leases", 0, -1))
    await queue.worker("y", worker_max_batch=1).lease(1)


async def cancel_and_enqueue(queue: Queue) -> None:
    waiting = await queue.waiting()
    await queue.producer.cancel(waiting[0])
    await queue.producer.cancel(waiting[-1])
    [job_id] = await queue.enqueue(1)
    await queue.producer.cancel(job_id)


async def requeue_dead(queue: Queue) -> None:
    admin = admin_of(queue)
    await admin.requeue(await admin.dead_letters())


async def lease_two(queue: Queue) -> None:
    await queue.worker("x").lease(2)


async def finish_two(queue: Queue) -> None:
    worker = queue.worker("z")
    await worker.settle([settled(job) for job in (await worker.lease(2)).jobs])


async def drain(queue: Queue) -> None:
    worker = queue.worker("z")
    for _ in range(3):
        await worker.settle([settled(job) for job in (await worker.lease(3)).jobs])


EVENTS = [release_two, expire_leases, lease_two, finish_two, cancel_and_enqueue, requeue_dead, drain]


@pytest.mark.parametrize("event", plain_first(EVENTS, 3), ids=lambda event: event.__name__)
async def test_an_event_between_two_steps_of_a_repair_does_no_damage(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, event: Callable[[Queue], Awaitable[object]]
) -> None:
    """Once at each step, with pages of two so that there are many; other keys in the store would add more."""
    Rest.to(store).run("FLUSHDB")
    monkeypatch.setattr("overload_demo.queue.maintenance.PAGE", 2)
    moment, commands = 0, 1
    while moment < commands:
        moment += 1
        settings = make_settings(tmp_path)
        async with open_queue(settings, store) as queue:
            await kill_jobs(queue, 2)
            ids = await queue.enqueue(9)
            await queue.worker("holder").lease(2)
            await queue.producer.cancel(ids[5])
            upstash = Interrupted(queue, moment, lambda queue=queue: event(queue))  # type: ignore[misc]
            try:
                assert await QueueRepair(upstash, settings).run() == Counter(), f"at command {moment}"
            finally:
                await upstash.aclose()
            commands = upstash.commands
            waiting = await queue.waiting()
            assert len(waiting) == len(set(waiting))
            assert await reconcile(queue) == Counter()
            assert await conserved(queue)
    assert moment > 10


async def is_over(queue: Queue) -> bool:
    stats = await queue.results.stats()
    return stats.queue_length == stats.in_flight == 0
