"""Several shards behind one API: where a job goes, what its id names, and numbers that add up."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from overload_demo.config import Settings
from overload_demo.jobs import ID_LENGTH, new_job_id, on_shard, shard_of
from overload_demo.queue.producer import NewJob
from overload_demo.queue.shards import JOBS_IN_A_ROW, queue_of, shard_of_record
from overload_demo.store.connect import Store, clients_of
from tests.http.test_bounds import CROWD, PATIENT, crowd
from tests.http.test_front_door import low_descriptor_limit
from tests.http.test_jobs_contract import assert_problem
from tests.http.test_metrics import scrape_on
from tests.support import hostile as h
from tests.support.running import JOB, make_settings, serving_api, submit
from tests.support.scraping import scrape
from tests.support.shards import depths, joined, sharing
from tests.support.sockets import connections
from tests.support.waiting import wait_until

SHARDS = 3


@pytest.fixture
def shards(store: Store) -> Store:
    return sharing(store, SHARDS)


@pytest.fixture
def client(settings: Settings, shards: Store) -> Iterator[httpx.Client]:
    with serving_api(settings, shards) as one:
        yield one


def with_key(client: httpx.Client, key: str, **fields: object) -> httpx.Response:
    return client.post("/jobs", json=JOB | fields, headers={"Idempotency-Key": key})


def test_jobs_spread_evenly_and_each_id_names_its_shard(
    settings: Settings, shards: Store, client: httpx.Client
) -> None:
    ids = submit(client, 4 * SHARDS * JOBS_IN_A_ROW)

    by_shard = Counter(map(shard_of, ids))
    assert depths(settings, shards) == [by_shard[shard] for shard in range(SHARDS)]
    assert max(by_shard.values()) <= 1.2 * len(ids) / SHARDS
    assert {len(one) - ID_LENGTH for one in ids} == {0, 3}


def test_a_job_is_polled_cancelled_and_placed_in_its_shard(client: httpx.Client) -> None:
    ids = submit(client, SHARDS * JOBS_IN_A_ROW)
    seen: Counter[int] = Counter()

    for job_id in ids:
        seen[shard_of(job_id)] += 1
        assert client.get(f"/jobs/{job_id}").json()["queue_position"] == SHARDS * seen[shard_of(job_id)]
    for job_id in (ids[0], ids[-1]):
        assert client.delete(f"/jobs/{job_id}").json() == {"status": "cancelled", "job_id": job_id}
        assert client.get(f"/jobs/{job_id}").json()["status"] == "cancelled"


def test_an_id_of_an_unknown_shard_is_a_404(client: httpx.Client) -> None:
    [job_id] = submit(client)

    for unknown in (on_shard(job_id, SHARDS), on_shard(job_id, 0xFFF)):
        assert_problem(client.get(f"/jobs/{unknown}"), 404)
        assert_problem(client.get(f"/jobs/{unknown}?x"), 404)  # not a direct request
        assert_problem(client.delete(f"/jobs/{unknown}"), 404)


def test_a_key_names_its_shard_and_its_job(settings: Settings, shards: Store, client: httpx.Client) -> None:
    first = {key: with_key(client, key).json()["job_id"] for key in map(str, range(30))}

    assert {key: with_key(client, key).json()["job_id"] for key in first} == first
    assert sum(depths(settings, shards)) == len(first)
    assert set(map(shard_of, first.values())) == set(range(SHARDS))
    assert_problem(with_key(client, "1", value=1), 422)


def test_a_further_shard_takes_over_its_part_of_the_keys_and_moves_no_other() -> None:
    records = [f"{number:064x}" for number in range(2000)]

    for shards in (1, 2, 5):
        moved = [one for one in records if shard_of_record(one, shards) != shard_of_record(one, shards + 1)]
        assert {shard_of_record(one, shards + 1) for one in moved} == {shards}
        assert 0.7 < len(moved) * (shards + 1) / len(records) < 1.3


def test_old_ids_and_most_keys_stay_valid_when_a_deployment_grows(settings: Settings, store: Store) -> None:
    keys = [str(number) for number in range(20)]
    with serving_api(settings, sharing(store, 1)) as client:
        ids = submit(client, 3)
        keyed = {key: with_key(client, key).json()["job_id"] for key in keys}

    with serving_api(settings, sharing(store, 2)) as client:
        assert [client.get(f"/jobs/{one}").status_code for one in ids] == [200] * 3
        assert client.delete(f"/jobs/{ids[0]}").status_code == 200
        again = {key: with_key(client, key).json()["job_id"] for key in keys}

    stayed = {key for key in keys if again[key] == keyed[key]}
    assert {shard_of(again[key]) for key in stayed} == {0}
    assert {shard_of(again[key]) for key in again.keys() - stayed} == {1}
    assert stayed


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("bounds", "room"),
    [
        ({"overload_max_queue_depth": 100}, [34, 33, 33]),
        ({"overload_max_wait_s": 45.0, "worker_processing_delay": 0.5}, [30, 30, 30]),
    ],
    ids=["by depth", "by wait"],
)
async def test_the_bounds_hold_in_each_shard_and_in_total(
    tmp_path: Path, shards: Store, bounds: dict[str, float], room: list[int]
) -> None:
    settings = make_settings(tmp_path, **bounds, **PATIENT)

    answers, stats = await crowd(settings, shards, 1)

    assert Counter(answer.status for answer in answers) == {202: sum(room), 429: CROWD - sum(room)}
    assert depths(settings, shards) == room
    assert stats["queue_length"] == stats["accepted"] == sum(room)
    assert stats["estimated_wait_seconds"] == sum(room) * settings.worker_processing_delay


def test_the_statistics_are_sums_with_the_numbers_of_each_shard(
    settings: Settings, shards: Store, client: httpx.Client
) -> None:
    submit(client, SHARDS * JOBS_IN_A_ROW)
    [job_id] = submit(client)
    client.delete(f"/jobs/{job_id}")

    stats, numbers = client.get("/queue/stats").json(), scrape(client)

    assert [one["shard"] for one in stats["shards"]] == list(range(SHARDS))
    assert all(one.keys() - {"shard"} < stats.keys() for one in stats["shards"])
    for name in ("queue_length", "accepted", "cancelled", "done", "in_flight"):
        assert stats[name] == sum(one[name] for one in stats["shards"]), name
    assert (stats["queue_length"], stats["cancelled"], stats["unreachable"]) == (SHARDS * JOBS_IN_A_ROW, 1, [])
    assert [numbers[f"overload_queue_depth{{{shard}}}"] for shard in range(SHARDS)] == depths_shown(stats)
    assert [numbers[f"overload_store_up{{{shard}}}"] for shard in range(SHARDS)] == [1] * SHARDS
    assert "overload_queue_depth" not in numbers
    health = client.get("/health").json()
    assert (health["status"], "detail" in health) == ("healthy", False)


def depths_shown(stats: dict[str, Any]) -> list[int]:
    return [one["queue_length"] for one in stats["shards"]]


def test_one_shard_shows_no_shards(settings: Settings, store: Store) -> None:
    with serving_api(settings, store) as client:
        assert {"shards", "unreachable"}.isdisjoint(client.get("/queue/stats").json())
        assert scrape(client)["overload_queue_depth"] == 0


@pytest.mark.anyio
async def test_states_of_jobs_in_several_shards_come_in_the_order_of_their_ids(
    settings: Settings, store: Store
) -> None:
    clients = clients_of(sharing(store, SHARDS), connections=8)
    producer, results = queue_of(clients, settings)
    ids = [(await producer.enqueue(NewJob(new_job_id(), "{}"))).job_id for _ in range(SHARDS * JOBS_IN_A_ROW)]
    await producer.cancel(ids[1])
    await producer.cancel(ids[-1])

    asked = [ids[-1], ids[0], on_shard(ids[0], SHARDS), *ids[1:-1], new_job_id()]
    found = [status and status.state.value for status in await results.statuses(asked)]

    assert found == ["cancelled", "queued", None, "cancelled", *["queued"] * (len(ids) - 3), None]
    for one in (producer, results, *clients):
        await one.aclose()


def test_the_cap_of_connections_leaves_descriptors_for_all_shards(settings: Settings, store: Store) -> None:
    with ExitStack() as stack:
        with low_descriptor_limit(256):
            client = stack.enter_context(serving_api(settings, sharing(store, 12)))
        [inside, *_] = stack.enter_context(connections(client, 8))
        stack.enter_context(connections(client, 120))  # fewer than the cap with one shard

        wait_until("it is full", lambda: scrape_on(inside)["overload_accepting_paused"] == 1)


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}], ids=["without a key", "with a key"])
@pytest.mark.usefixtures("no_repeats")
async def test_an_unknown_outcome_names_the_id_that_the_job_has_in_its_shard(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    settings = make_settings(tmp_path)
    async with h.hostile(h.hang_up) as first, h.hostile(h.hang_up) as second:
        servers = [first, second]

        def post() -> httpx.Response:
            with serving_api(settings, joined(one.address for one in servers)) as client:
                return client.post("/jobs", json=JOB, headers=headers)

        answer = await asyncio.to_thread(post)

    problem = assert_problem(answer, 503)
    assert problem["outcome"] == "unknown"
    [shard] = [number for number, one in enumerate(servers) if one.requests]
    assert shard == shard_of(problem["job_id"])
    assert problem["job_id"] in servers[shard].requests[0].body
