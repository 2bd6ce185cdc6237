"""Shards that are killed or frozen under a worker: the others are served, and no job is lost or done twice."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from overload_demo.config import Settings
from overload_demo.jobs import shard_of
from tests.support.queues import Queue
from tests.support.running import events, working
from tests.support.shard_servers import (
    ShardServer,
    all_done,
    done_in_order,
    enqueue,
    open_queues,
    store_of_all,
    three_shards,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[ShardServer]]:
    with three_shards(tmp_path / "shards") as servers:
        yield servers


@pytest.fixture
async def queues(settings: Settings, servers: list[ShardServer]) -> AsyncIterator[list[Queue]]:
    async with open_queues(settings, servers) as queues:
        yield queues


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"worker_processing_delay": 0.01})


async def test_a_killed_shard_costs_the_others_nothing_and_loses_nothing(
    tmp_path: Path, servers: list[ShardServer], queues: list[Queue], settings: Settings
) -> None:
    ids = [job_id for shard, count in ((1, 200), (0, 60), (2, 60)) for job_id in await enqueue(queues, shard, count)]
    of_dead = [one for one in ids if shard_of(one) == 1]

    with working(settings, store_of_all(servers)):
        wait_until("the worker is at it", lambda: len(done_in_order(tmp_path)) > 20)
        servers[1].kill()
        await all_done(queues, [one for one in ids if shard_of(one) != 1])
        later = await enqueue(queues, 2, 10)
        await all_done(queues, later)
        assert len(set(done_in_order(tmp_path)) & set(of_dead)) < len(of_dead)
        servers[1].start()
        servers[1].wait()
        await all_done(queues, of_dead)

    assert sorted(done_in_order(tmp_path)) == sorted(ids + later), "none is lost, none is done twice"


@pytest.mark.exhaustive
async def test_jobs_of_a_frozen_shard_are_done_once_it_answers(
    tmp_path: Path, servers: list[ShardServer], queues: list[Queue], settings: Settings
) -> None:
    ids = [job_id for shard in (1, 0) for job_id in await enqueue(queues, shard, 60)]
    gateway = servers[1].gateway_pid()

    with working(settings, store_of_all(servers)):
        wait_until("the worker is at it", lambda: len(done_in_order(tmp_path)) > 20)
        os.kill(gateway, signal.SIGSTOP)
        try:
            await all_done(queues, [one for one in ids if shard_of(one) == 0])
        finally:
            os.kill(gateway, signal.SIGCONT)
        await all_done(queues, ids)

    assert sorted(done_in_order(tmp_path)) == sorted(ids)


@pytest.mark.exhaustive
async def test_a_worker_that_ends_logs_what_it_owes_to_a_dead_shard(
    tmp_path: Path,
    servers: list[ShardServer],
    queues: list[Queue],
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await enqueue(queues, 1, 1)
    changes = {"worker_processing_delay": 3.0, "worker_grace_s": 1.0}

    with working(settings.model_copy(update=changes), store_of_all(servers)):
        wait_until("the job runs", lambda: events(tmp_path))
        servers[1].kill()
        wait_until("it is done", lambda: done_in_order(tmp_path))
    servers[1].start()
    servers[1].wait()

    assert "shard 1: ended with 1 jobs not settled, their leases will expire" in caplog.text


@pytest.mark.exhaustive
async def test_a_worker_waits_for_the_shards_while_none_answers(
    servers: list[ShardServer], queues: list[Queue], settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with working(settings.model_copy(update={"overload_store_deadline_s": 0.2}), store_of_all(servers)):
        for server in servers:
            server.kill()
        wait_until("it is logged", lambda: "store request failed, retrying" in caplog.text)
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        await all_done(queues, [job_id for shard in (0, 1, 2) for job_id in await enqueue(queues, shard, 2)])
