"""Unexpected stored data does not stop the queue: the job becomes a dead letter with a reason, the others are done."""

import asyncio
import json

import pytest

from overload_demo.config import Settings
from overload_demo.errors import IdempotencyConflictError
from overload_demo.jobs import new_job_id
from overload_demo.lab.parts import WorkerThread
from overload_demo.store.connect import Store
from tests.support.queues import Queue, ids_of, open_queue, settled
from tests.support.running import JOB
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio


async def test_a_job_without_data_becomes_a_dead_letter_and_blocks_no_job(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    await queue.redis("DEL", f"{queue.prefix}job:{ids[1]}")

    lease = await queue.worker().lease(5)

    assert ids_of(lease.jobs) == [ids[0], ids[2]]
    [letter] = await queue.dead_letters()
    assert letter["job_id"] == ids[1]
    assert letter["reason"].startswith("unreadable")
    status = await queue.status(ids[1])
    assert status is not None
    assert status.error.startswith("unreadable")


async def test_a_job_of_another_type_becomes_a_dead_letter_and_blocks_no_job(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    await queue.redis("SET", f"{queue.prefix}job:{ids[0]}", "not a hash")

    assert ids_of((await queue.worker().lease(5)).jobs) == ids[1:]
    assert [letter["job_id"] for letter in await queue.dead_letters()] == ids[:1]
    assert [await queue.state(one) for one in ids] == [None, "processing", "processing"]


@pytest.mark.parametrize("field", ["attempts", "seq", "payload", "status", "fence"])
async def test_garbage_in_a_field_blocks_no_job(queue: Queue, field: str) -> None:
    ids = await queue.enqueue(3)
    await queue.redis("HSET", f"{queue.prefix}job:{ids[0]}", field, "garbage")
    worker = queue.worker()

    for _ in range(2):
        if jobs := (await worker.lease(5)).jobs:
            await worker.settle([settled(job) for job in jobs])

    states = [status.state if status else None for status in await queue.results.statuses(ids)]
    assert states[1:] == ["done", "done"]


LEFT_BY_SOMEBODY = {
    "a fence that is none": [("HSET", "jobs:stats", "fence", "x")],
    "a count that is none": [("HSET", "jobs:stats", "dead", "x", "failed", "1.5", "accepted", "x", "done", "x")],
    "rates that are none": [("HSET", "jobs:stats", "recent_jobs", "nan", "recent_busy_s", "x", "recent_at", "x")],
    "rates without an end": [("HSET", "jobs:stats", "recent_jobs", "1e-320", "recent_busy_s", "1e308")],
    "a malformed heartbeat": [("HSET", "jobs:workers", "x", "x")],
    "letters that are none": [("RPUSH", "jobs:dead", "x", "5", "{}", '{"job_id":5}')],
    "a last number that is none": [("SET", "jobs:seq", "x")],
    "attempts in fractions": [("HSET", "job:<bad>", "attempts", "1.5")],
    "attempts that are no number": [("HSET", "job:<bad>", "attempts", "nan")],
    "a number that is none": [("HSET", "job:<bad>", "seq", "nan"), ("HSET", "job:<worse>", "seq", "inf")],
    "a second entry close to the first": [("RPUSH", "jobs:queue", "<good>")],
    "a state that is none": [("HSET", "job:<bad>", "status", "x")],
}


@pytest.mark.parametrize("what", LEFT_BY_SOMEBODY)
async def test_foreign_data_in_the_store_leaves_the_other_jobs_done_once(
    queue: Queue, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overload_demo.queue.consumer.MAX_DEAD_ENTRIES", 2)
    bad, worse, *good = await queue.enqueue(5)
    for name, key, *values in LEFT_BY_SOMEBODY[what]:
        names = {"<bad>": bad, "<worse>": worse, "<good>": good[-1]}
        key, *values = [
            names.get(text) or text.replace("<bad>", bad).replace("<worse>", worse) for text in (key, *values)
        ]
        await queue.redis(name, f"{queue.prefix}{key}", *values)
    await queue.redis("RPUSH", f"{queue.prefix}jobs:queue", "unheard of")
    good += await queue.enqueue(2)
    worker = queue.worker()
    leased: list[str] = []

    while jobs := (await worker.lease(10)).jobs:
        leased += ids_of(jobs)
        assert await worker.settle([settled(job) for job in jobs]) == 0

    assert [leased.count(one) for one in good] == [1] * len(good)
    assert [await queue.state(one) for one in good] == ["done"] * len(good)
    assert await queue.state(bad) in ("done", "failed")
    assert (await queue.results.stats()).queue_length == 0


async def test_a_record_of_another_type_fails_no_other_job(queue: Queue) -> None:
    await queue.redis("RPUSH", f"{queue.prefix}idem:record", "x")

    first, second, third = await asyncio.gather(
        queue.enqueue_one(),
        queue.enqueue_one(idempotency_record="record", fingerprint="f"),
        queue.enqueue_one(),
        return_exceptions=True,
    )

    assert isinstance(second, IdempotencyConflictError)
    assert {*await queue.waiting()} == {first, third}


@pytest.mark.parametrize("field", ["attempts", "seq"])
async def test_garbage_in_a_leased_job_blocks_no_job(queue: Queue, field: str) -> None:
    ids = await queue.enqueue(3)
    await queue.worker("dead").lease(2)
    await queue.redis("HSET", f"{queue.prefix}job:{ids[0]}", field, "garbage")
    await queue.expire_lease(*ids[:2])
    alive = queue.worker("alive")

    for _ in range(3):
        await alive.settle([settled(job) for job in (await alive.lease(5)).jobs])

    assert [await queue.state(one) for one in ids] == ["done"] * 3


async def test_a_second_entry_of_a_job_is_dropped(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    worker = queue.worker()
    [job] = (await worker.lease(1)).jobs
    await queue.redis("LPUSH", f"{queue.prefix}jobs:queue", ids[0])

    assert ids_of((await worker.lease(5)).jobs) == ids[1:]
    assert await worker.settle([settled(job)]) == 0
    assert await queue.waiting() == []


async def test_an_id_pushed_by_another_program_becomes_a_dead_letter(queue: Queue) -> None:
    await queue.redis("RPUSH", f"{queue.prefix}jobs:queue", "job_1", "", "\u00e4 {}")
    ids = await queue.enqueue(1)

    assert ids_of((await queue.worker().lease(5)).jobs) == ids
    assert [letter["job_id"] for letter in await queue.dead_letters()] == ["job_1", "", "\u00e4 {}"]


@pytest.mark.parametrize(
    "payload",
    ["", "not json", "[]", "5", "null", '{"name": 1}', json.dumps(JOB | {"value": None}), "[" * 100_000, '{"a": NaN}'],
)
async def test_a_malformed_payload_is_dead_and_the_next_job_is_done(
    settings: Settings, store: Store, payload: str
) -> None:
    async with open_queue(settings, store) as queue:
        bad = await queue.enqueue_one(payload)
        good = await queue.enqueue_one()
        worker = WorkerThread(settings, store)
        worker.start()

        await wait_until_async("the valid job is done", lambda: is_done(queue, good))
        await asyncio.to_thread(worker.stop)

        status = await queue.status(bad)
        assert status is not None
        assert status.error.startswith("unreadable")
        assert [letter["job_id"] for letter in await queue.dead_letters()] == [bad]


@pytest.mark.parametrize(
    "stored", ["not json", "[" * 100_000 + "]" * 100_000, "9" * 5000, "NaN", '{"a":[Infinity]}', '"\\ud800"']
)
async def test_a_malformed_result_is_reported_and_affects_no_other_reply(queue: Queue, stored: str) -> None:
    bad, good = await queue.enqueue(2)
    worker = queue.worker()
    jobs = (await worker.lease(2)).jobs
    await worker.settle([settled(jobs[0], text=stored), settled(jobs[1], text='"fine"')])

    first, second = await queue.results.statuses([bad, good])

    assert first is not None
    assert second is not None
    assert second.result == "fine"
    json.dumps([first.result, first.error], allow_nan=False).encode()


async def test_unknown_ids_are_unknown_at_any_place_of_a_batch(queue: Queue) -> None:
    [known] = await queue.enqueue(1)
    unknown = [new_job_id(), known, "", "x" * 1000, new_job_id()]

    found = await queue.results.statuses(unknown)

    assert [status is not None for status in found] == [False, True, False, False, False]


async def test_many_large_results_are_read_in_one_call(queue: Queue) -> None:
    """A reply has at most 10 MB; a call for more still returns everything."""
    text = json.dumps("x" * 400_000)
    ids = await queue.enqueue(40)
    worker = queue.worker()
    for _ in range(4):
        jobs = (await worker.lease(10)).jobs
        await worker.settle([settled(job, text=text) for job in jobs])

    found = await queue.results.statuses([*ids, new_job_id()])

    assert [status.result if status else None for status in found] == ["x" * 400_000] * 40 + [None]


async def test_a_job_costs_only_a_few_commands(queue: Queue) -> None:
    """Counted by the server, commands inside scripts included; the bound is 8 a job."""
    count = 200
    await queue.enqueue(1)  # loads the scripts
    before = await commands(queue)

    await asyncio.gather(*(queue.enqueue_one() for _ in range(count)))
    worker = queue.worker()
    await worker.settle([settled(job) for job in (await worker.lease(1)).jobs])
    for _ in range(2):
        await worker.settle([settled(job) for job in (await worker.lease(count // 2)).jobs])

    repeats = 2 if type(queue.upstash).__name__ == "Repeating" else 1
    assert await commands(queue) - before <= 8 * repeats * count


async def commands(queue: Queue) -> int:
    info = str(await queue.redis("INFO", "commandstats"))
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in info.split() if "calls=" in line)


async def is_done(queue: Queue, job_id: str) -> bool:
    return await queue.state(job_id) == "done"
