"""A worker of three shards, each a real store: order, wake-ups, expired leases, restarts."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from overload_demo.config import Settings
from overload_demo.jobs import shard_of
from overload_demo.queue.consumer import LeaseEnd
from overload_demo.store.connect import Store
from tests.support.commands import run_module
from tests.support.queues import Queue, settled
from tests.support.running import child, environment, working
from tests.support.shard_servers import (
    COUNT,
    ShardServer,
    all_done,
    are_done,
    done_in_order,
    enqueue,
    open_queues,
    store_of_all,
    three_shards,
    variables_of_all,
)
from tests.support.waiting import wait_until, wait_until_async

pytestmark = pytest.mark.anyio

NEVER = {"worker_poll_interval": 3600.0, "worker_max_poll_interval": 3600.0, "worker_lease_s": 3600.0}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ShardServer]]:
    with three_shards(tmp_path_factory.mktemp("shards")) as servers:
        yield servers


@pytest.fixture
def store(servers: list[ShardServer]) -> Store:
    return store_of_all(servers)


@pytest.fixture
async def queues(settings: Settings, servers: list[ShardServer]) -> AsyncIterator[list[Queue]]:
    async with open_queues(settings, servers) as queues:
        yield queues


async def test_the_oldest_job_is_done_first_in_whichever_shard_it_is(
    tmp_path: Path, settings: Settings, store: Store, queues: list[Queue]
) -> None:
    ids = [job_id for shard in (2, 0, 1) for job_id in await enqueue(queues, shard, 20)]

    with working(settings, store):
        await all_done(queues, ids)

    assert done_in_order(tmp_path) == ids


async def test_a_shard_with_few_jobs_gets_its_turn_beside_a_long_queue(
    tmp_path: Path, store: Store, queues: list[Queue], settings: Settings
) -> None:
    before, [few], after = [await enqueue(queues, shard, count) for shard, count in ((0, 20), (1, 1), (0, 20))]

    with working(settings.model_copy(update={"worker_processing_delay": 0.02}), store):
        await all_done(queues, [*before, few, *after])

    place = done_in_order(tmp_path).index(few)
    assert 20 <= place < 25, "after the older ones, except those of the batch in which the worker met it"


async def test_an_expired_lease_returns_in_a_quiet_shard_while_another_is_busy(
    tmp_path: Path, store: Store, queues: list[Queue], settings: Settings
) -> None:
    [lost], busy = await enqueue(queues, 1, 1), await enqueue(queues, 0, 80)
    await queues[1].worker("dead", worker_lease_s=1.0).lease(1)

    with working(settings.model_copy(update={"worker_processing_delay": 0.03, "worker_lease_s": 1.0}), store):
        await all_done(queues, [lost, *busy])

    assert done_in_order(tmp_path).index(lost) < len(busy)
    assert await queues[1].field(lost, "attempts") == "2"


async def test_a_sleeping_worker_is_woken_by_each_shard(settings: Settings, store: Store, queues: list[Queue]) -> None:
    with working(settings.model_copy(update=NEVER), store):
        for shard in (0, 1, 2, 2, 1, 0):
            await wait_until_async("the worker sleeps", lambda: _sleeps(queues))
            await all_done(queues, await enqueue(queues, shard, 3))


async def _sleeps(queues: list[Queue]) -> bool:
    marks = [await queue.redis("HGET", f"{queue.prefix}jobs:stats", "asleep") for queue in queues]
    return marks == ["1"] * COUNT


async def test_a_worker_until_empty_ends_when_each_shard_is_empty(
    tmp_path: Path, settings: Settings, servers: list[ShardServer], queues: list[Queue]
) -> None:
    ids = [job_id for shard in range(COUNT) for job_id in await enqueue(queues, shard, 5)]
    await queues[2].worker("dead", worker_lease_s=3.0).lease(1)
    variables = variables_of_all(servers, settings)

    part = child("overload_demo.worker", "--until-empty", folder=tmp_path, **variables)
    part.start()
    try:
        wait_until("it has ended", lambda: part.pid is None, 30.0)
    finally:
        part.stop()

    assert await are_done(queues, ids)


async def test_a_worker_serves_the_shards_that_are_chosen(
    settings: Settings, store: Store, queues: list[Queue]
) -> None:
    [left] = await enqueue(queues, 1, 1)
    ids = [job_id for shard in (0, 2) for job_id in await enqueue(queues, shard, 5)]

    for chosen in ("0,2", "1"):
        with working(settings.model_copy(update={"worker_shards": chosen}), store):
            await all_done(queues, ids)
        assert await are_done(queues, [left]) == (chosen == "1")
        ids = [left]


async def test_a_restarted_worker_takes_back_its_leases_in_each_shard(
    tmp_path: Path, servers: list[ShardServer], queues: list[Queue], settings: Settings
) -> None:
    """The leases would expire an hour later."""
    variables = variables_of_all(servers, settings) | {"WORKER_LEASE_S": 3600, "WORKER_PROCESSING_DELAY": 3600}
    ids = []
    for shard in range(COUNT):
        ids += await enqueue(queues, shard, 1)
        part = child("overload_demo.worker", folder=tmp_path, **variables, WORKER_SHARDS=shard)
        part.start()
        await wait_until_async("it runs", partial(_is_processing, queues, ids[-1]))
        part.kill()
        part.stop()

    part = child("overload_demo.worker", folder=tmp_path, **variables | {"WORKER_PROCESSING_DELAY": 0})
    part.start()
    try:
        await all_done(queues, ids)
    finally:
        part.stop()


async def _is_processing(queues: list[Queue], job_id: str) -> bool:
    return await queues[shard_of(job_id)].state(job_id) == "processing"


async def test_a_shard_that_is_not_configured_is_an_error_in_one_line(
    tmp_path: Path, servers: list[ShardServer], settings: Settings
) -> None:
    part = child("overload_demo.worker", folder=tmp_path, **variables_of_all(servers, settings), WORKER_SHARDS="0,3")
    part.start()
    wait_until("it has ended", lambda: part.pid is None)
    part.stop()

    *_, last = (tmp_path / "worker.log").read_text().splitlines()
    assert last == "error: WORKER_SHARDS: there is no shard 3, the last one is 2"


async def test_the_commands_reach_all_shards(
    tmp_path: Path, servers: list[ShardServer], queues: list[Queue], settings: Settings
) -> None:
    ids = [job_id for shard in range(COUNT) for job_id in await enqueue(queues, shard, 1)]
    for queue in queues:
        worker = queue.worker()
        await worker.settle([settled((await worker.lease(1)).jobs[0], LeaseEnd.DEAD, "no good")])
    env = environment(tmp_path, **variables_of_all(servers, settings))

    def output(*arguments: str) -> str:
        done = run_module("overload_demo", "queue", *arguments, env=env)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    assert {line.split()[0] for line in output("dead", "list").splitlines()} == set(ids)
    assert '"status": "failed"' in output("dead", "show", ids[2])
    assert output("dead", "requeue", ids[1]) == "1 job requeued\n"
    assert output("dead", "requeue", "--all") == "2 jobs requeued\n"
    assert [await queue.waiting() for queue in queues] == [[one] for one in ids]
    assert "paused" in output("pause")
    assert [(await queue.worker().lease(1)).paused for queue in queues] == [True] * COUNT
