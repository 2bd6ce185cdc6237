"""The operator's commands over several shards: each entry and each job is found in its shard."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from overload_demo.config import Settings
from overload_demo.errors import StoreUnavailableError
from overload_demo.jobs import new_job_id, on_shard
from overload_demo.queue.consumer import LeaseEnd
from overload_demo.queue.maintenance import QueueAdmin
from overload_demo.store.connect import Store, opened
from tests.support.queues import Queue, open_queue, settled
from tests.support.running import free_port
from tests.support.shard_servers import enqueue
from tests.support.shards import sharing

pytestmark = pytest.mark.anyio

COUNT = 3


@pytest.fixture
async def queues(settings: Settings, store: Store) -> AsyncIterator[list[Queue]]:
    async with AsyncExitStack() as stack:
        stores = [(one, None) for one in sharing(store, COUNT)[0].shards]
        yield [await stack.enter_async_context(open_queue(settings, one)) for one in stores]


@pytest.fixture
async def admin(settings: Settings, store: Store) -> AsyncIterator[QueueAdmin]:
    async with opened(sharing(store, COUNT)) as clients:
        yield QueueAdmin(clients, settings)


async def dead_in_turn(queues: list[Queue], *shards: int) -> list[str]:
    """Let a job die in each of these shards, one second after the other by their entries."""
    ids = []
    for second, shard in enumerate(shards):
        ids += await enqueue(queues, shard, 1)
        worker = queues[shard].worker()
        one = settled((await worker.lease(1)).jobs[0], LeaseEnd.DEAD, "no good")
        await worker.settle([replace(one, completed_at=f"2026-01-01T12:00:{second:02}.000Z")])
    return ids


async def test_dead_letters_of_all_shards_are_one_list_oldest_first(queues: list[Queue], admin: QueueAdmin) -> None:
    ids = await dead_in_turn(queues, 2, 0, 1, 0, 2)

    assert [letter.job_id for letter in await admin.dead_letters()] == ids
    assert [letter.job_id for letter in await admin.dead_letters(2)] == ids[:2]


async def test_each_dead_job_is_requeued_in_its_shard(queues: list[Queue], admin: QueueAdmin) -> None:
    first, second, left = await dead_in_turn(queues, 2, 1, 2)
    by_id = {letter.job_id: letter for letter in await admin.dead_letters()}
    nowhere = replace(by_id[left], job_id=on_shard(new_job_id(), 7), shard=7)

    assert await admin.requeue([by_id[second], nowhere, by_id[first]]) == ["queued", "unknown", "queued"]

    assert [await queue.waiting() for queue in queues] == [[], [second], [first]]
    assert [letter.job_id for letter in await admin.dead_letters()] == [left]


async def test_purged_letters_leave_their_shards(queues: list[Queue], admin: QueueAdmin) -> None:
    ids = await dead_in_turn(queues, 2, 0, 1)

    await admin.purge((await admin.dead_letters())[:2])

    assert [letter.job_id for letter in await admin.dead_letters()] == ids[2:]


async def test_a_pause_and_its_end_hold_for_each_shard(queues: list[Queue], admin: QueueAdmin) -> None:
    for command, is_paused in ((admin.pause, True), (admin.resume, False)):
        await command()

        assert [(await queue.worker().lease(1)).paused for queue in queues] == [is_paused] * COUNT


async def test_lost_keys_are_repaired_in_each_shard(queues: list[Queue], admin: QueueAdmin) -> None:
    for shard in (0, 2):
        await enqueue(queues, shard, 2)
        await queues[shard].redis("DEL", f"{queues[shard].prefix}jobs:queue")

    assert dict(await admin.reconcile()) == {"queued": 4}


async def test_a_job_is_read_from_its_shard(queues: list[Queue], admin: QueueAdmin) -> None:
    [job_id] = await enqueue(queues, 2, 1)

    assert (await admin.job(job_id))["status"] == "queued"
    assert await admin.job(on_shard(job_id, 0)) == {}
    assert await admin.job(on_shard(job_id, 7)) == {}


async def test_a_command_is_done_in_the_other_shards_when_one_fails(
    queues: list[Queue], settings: Settings, store: Store, no_repeats: None
) -> None:
    first, dead, last = sharing(store, COUNT)[0].shards
    dead = replace(dead, url=f"http://127.0.0.1:{free_port()}")
    async with opened((replace(first, others=(dead, last)), None)) as clients:
        with pytest.raises(StoreUnavailableError, match=r"^shard 1: the store cannot be reached"):
            await QueueAdmin(clients, settings).pause()

    assert [(await queue.worker().lease(1)).paused for queue in queues] == [True, False, True]
