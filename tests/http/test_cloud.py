"""API and worker on a remote database: it adds latency, and loses neither jobs nor their states."""

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from overload_demo.api.app import create_app
from overload_demo.config import Settings
from overload_demo.lab.simulated_cloud import COMMANDS_PER_S
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import Store
from tests.support.cloud import CloudDatabase, Relay, lagging_cloud, store_of
from tests.support.running import JOB, client_of, events, make_settings, serving_api, submit, wait_for, working
from tests.support.waiting import wait_until, wait_until_async

pytestmark = pytest.mark.anyio
LARGEST = 1_000_000  # bytes of a body, where that is allowed


@pytest.fixture
def cloud(store: Store) -> Iterator[CloudDatabase]:
    with CloudDatabase(store[0]).serving() as one:
        yield one


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a deadline that a machine with too little CPU keeps too."""
    return make_settings(tmp_path, overload_store_deadline_s=20.0)


@pytest.fixture
async def client(cloud: CloudDatabase, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(settings, store_of(cloud))) as one:
        yield one


@pytest.mark.parametrize(
    "round_trip_s", [0.001, *(pytest.param(one, marks=pytest.mark.exhaustive) for one in (0.01, 0.05))]
)
async def test_a_crowd_shares_few_round_trips_and_every_job_is_done_once(
    cloud: CloudDatabase, settings: Settings, tmp_path: Path, round_trip_s: float
) -> None:
    cloud.round_trip_s = round_trip_s
    async with client_of(create_app(settings, store_of(cloud))) as client:
        answers = await asyncio.gather(*(client.post("/jobs", json=JOB) for _ in range(500)))
        exchanges = cloud.exchanges
        ids = [answer.json()["job_id"] for answer in answers]
        with working(settings, store_of(cloud)):

            async def all_done() -> bool:
                found = await asyncio.gather(*(client.get(f"/jobs/{one}") for one in ids))
                return all(one.json()["status"] == "done" for one in found)

            await wait_until_async("all are done", all_done, timeout_s=30.0)

    assert {answer.status_code for answer in answers} == {202}
    assert exchanges <= 20
    assert sorted(job_id for what, job_id, _ in events(tmp_path) if what == "effect") == sorted(ids)


async def test_above_the_command_limit_requests_wait_and_none_is_refused(
    cloud: CloudDatabase, client: httpx.AsyncClient
) -> None:
    cloud.commands_per_s = COMMANDS_PER_S / 50

    async def some_have_waited() -> bool:
        answers = await asyncio.gather(*(client.post("/jobs", json=JOB) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {202}
        return cloud.waited > 0

    await wait_until_async("requests wait for their turn", some_have_waited)


async def test_an_exhausted_quota_is_a_503_not_enqueued(cloud: CloudDatabase, client: httpx.AsyncClient) -> None:
    cloud.quota_is_used_up = True
    refused = [await client.post("/jobs", json=JOB), await client.get("/jobs/job_" + "0" * 32)]
    health, ready = await client.get("/health"), await client.get("/health/ready")
    cloud.quota_is_used_up = False
    accepted, stats = await client.post("/jobs", json=JOB), await client.get("/queue/stats")

    for answer in [*refused, ready]:
        assert answer.status_code == 503
        assert "monthly command quota is used up" in answer.json()["detail"]
    assert refused[0].json()["outcome"] == "not_enqueued"
    assert int(refused[0].headers["retry-after"]) > 10
    assert health.json()["status"] == "degraded"
    assert accepted.status_code == 202
    assert stats.json()["accepted"] == 1


async def test_an_exhausted_quota_makes_a_worker_back_off_and_log_once(
    cloud: CloudDatabase, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.quota_is_used_up = True
    with caplog.at_level(logging.WARNING, "overload_demo.worker"), working(settings, store_of(cloud)):
        await asyncio.to_thread(wait_until, "it has tried again and again", lambda: cloud.refused > 10)
        cloud.quota_is_used_up = False
        with serving_api(settings, store_of(cloud)) as client:
            await asyncio.to_thread(lambda: wait_for(client, submit(client, 3)))

    warnings = [record.getMessage() for record in caplog.records if "monthly command quota" in record.getMessage()]
    assert len(warnings) == 1


async def test_a_worker_keeps_its_results_while_the_quota_is_exhausted(
    cloud: CloudDatabase, settings: Settings, tmp_path: Path
) -> None:
    with serving_api(settings, store_of(cloud)) as client:
        ids = await asyncio.to_thread(submit, client, 20)
        with working(settings.model_copy(update={"worker_processing_delay": 0.01}), store_of(cloud)):
            await asyncio.to_thread(wait_until, "it works", lambda: len(events(tmp_path)) > 4)
            cloud.quota_is_used_up = True
            await asyncio.to_thread(wait_until, "it was refused", lambda: cloud.refused > 1)
            cloud.quota_is_used_up = False
            await asyncio.to_thread(wait_for, client, ids)

    assert sorted(job_id for what, job_id, _ in events(tmp_path) if what == "effect") == sorted(ids)


async def test_requests_wait_for_a_short_upgrade_of_the_database(
    cloud: CloudDatabase, client: httpx.AsyncClient
) -> None:
    cloud.is_upgrading = True
    posting = asyncio.create_task(client.post("/jobs", json=JOB))

    async def was_refused() -> bool:
        return cloud.refused > 1

    await wait_until_async("the job was refused for the time being", was_refused)
    cloud.is_upgrading = False

    assert (await posting).status_code == 202


@pytest.mark.usefixtures("no_repeats")
async def test_a_long_upgrade_of_the_database_is_a_503_not_enqueued(cloud: CloudDatabase, tmp_path: Path) -> None:
    cloud.is_upgrading = True
    settings = make_settings(tmp_path)
    async with client_of(create_app(settings, store_of(cloud))) as client:
        refused = await client.post("/jobs", json=JOB)
        cloud.is_upgrading = False
        stats = await client.get("/queue/stats")

    assert (refused.status_code, refused.json()["outcome"]) == (503, "not_enqueued")
    assert "server upgrade" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    assert stats.json()["accepted"] == 0


async def test_a_reply_that_is_too_large_is_a_503_and_the_next_one_a_200(
    cloud: CloudDatabase, client: httpx.AsyncClient
) -> None:
    await client.get("/queue/stats")
    cloud.max_reply_bytes = 10
    refused = await client.get("/queue/stats")
    cloud.max_reply_bytes = 10_485_760

    assert refused.status_code == 503
    assert "max request size exceeded" in refused.json()["detail"]
    assert (await client.get("/queue/stats")).status_code == 200


@pytest.mark.exhaustive
async def test_the_largest_jobs_and_results_stay_below_the_largest_reply(cloud: CloudDatabase, tmp_path: Path) -> None:
    """Quotes double in size in JSON: large jobs are leased together, and their results polled together."""
    settings = make_settings(tmp_path, overload_max_body_bytes=LARGEST, overload_store_deadline_s=20.0)
    message = '"' * (LARGEST // 2 - 200)
    async with client_of(create_app(settings, store_of(cloud))) as client:
        bodies = [json.dumps(JOB | {"message": message}).encode()] * 20
        headers = {"Content-Type": "application/json"}
        answers = await asyncio.gather(*(client.post("/jobs", content=body, headers=headers) for body in bodies))
        ids = [answer.json()["job_id"] for answer in answers]
        with working(settings, store_of(cloud)):

            async def all_done() -> bool:
                found = await asyncio.gather(*(client.get(f"/jobs/{one}") for one in ids))
                return all(one.json()["status"] == "done" for one in found)

            await wait_until_async("all are done", all_done, timeout_s=60.0)

    assert LARGEST < cloud.largest_reply < cloud.max_reply_bytes


@pytest.fixture(scope="module")
def lagging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CloudDatabase, Relay]]:
    with lagging_cloud(tmp_path_factory.mktemp("lagging")) as both:
        yield both


async def test_a_read_without_the_token_of_a_write_is_stale_and_with_it_waits(
    lagging: tuple[CloudDatabase, Relay], settings: Settings
) -> None:
    """The simulated cloud behaves as documented; otherwise the other tests here would prove nothing."""
    cloud, relay = lagging
    relay.lag_s = 0.5
    key, writer, reader = f"{settings.overload_key_prefix}k", Upstash(cloud.address), Upstash(cloud.address)
    try:
        numbers = map(str, itertools.count())

        async def a_read_is_stale() -> bool:
            await writer.command("SET", key, written := next(numbers))
            return await reader.command("GET", key) != written

        await wait_until_async("a read is stale", a_read_is_stale)
        await writer.command("SET", key, "new")
        assert await writer.command("GET", key) == "new"
        assert cloud.stale_reads > 0
    finally:
        await writer.command("DEL", key)
        await writer.aclose()
        await reader.aclose()


async def test_a_lagging_replica_never_makes_an_accepted_job_a_404(
    lagging: tuple[CloudDatabase, Relay], settings: Settings, tmp_path: Path
) -> None:
    """States are read by scripts, which the primary runs: no poll after a 202 is a 404, at any API process."""
    cloud, relay = lagging
    relay.lag_s = 0.5
    stores = store_of(cloud)
    with serving_api(settings, stores) as one, serving_api(settings, stores) as other:
        ids = []
        for _ in range(10):
            [job_id] = await asyncio.to_thread(submit, one)
            found = await asyncio.to_thread(other.get, f"/jobs/{job_id}")
            assert (found.status_code, found.json()["status"]) == (200, "queued")
            ids.append(job_id)
        assert (await asyncio.to_thread(other.get, "/queue/stats")).json()["queue_length"] == 10
        with working(settings, stores):
            await asyncio.to_thread(wait_for, other, ids)

    assert sorted(job_id for what, job_id, _ in events(tmp_path) if what == "effect") == sorted(ids)
