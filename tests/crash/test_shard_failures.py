"""A dead, frozen or full shard: the others take the jobs without a key, and no accepted job is lost."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import valkey
from pydantic import SecretStr

from overload_demo.api.app import create_app
from overload_demo.config import Settings
from overload_demo.jobs import shard_of
from overload_demo.queue.shards import JOBS_IN_A_ROW
from overload_demo.rest import Address
from overload_demo.store.connect import Store
from tests.crash.test_store_external_server import own_server
from tests.http.test_jobs_contract import assert_problem
from tests.support import hostile as h
from tests.support.cases import plain_first
from tests.support.running import JOB, client_of, free_port, make_settings, serving_api, status, submit
from tests.support.scraping import scrape
from tests.support.shards import KillableStore, depths, joined, sharing
from tests.support.stores import standalone_store
from tests.support.waiting import wait_until

SHARDS = 3


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[KillableStore]]:
    with ExitStack() as stack:
        yield [stack.enter_context(KillableStore(tmp_path / f"store-{number}")) for number in range(SHARDS)]


def with_key(client: httpx.Client, key: str) -> httpx.Response:
    return client.post("/jobs", json=JOB, headers={"Idempotency-Key": key})


def keys_by_shard(client: httpx.Client) -> dict[int, str]:
    """A key of each shard."""
    return {shard_of(with_key(client, key).json()["job_id"]): key for key in map(str, range(30))}


def test_a_dead_shard_costs_nothing_but_its_own_jobs(tmp_path: Path, stores: list[KillableStore]) -> None:
    settings = make_settings(tmp_path, overload_store_deadline_s=2.0)
    with serving_api(settings, joined(one.address for one in stores)) as client:
        keys, old = keys_by_shard(client), submit(client, SHARDS * JOBS_IN_A_ROW)
        lost = next(one for one in old if shard_of(one) == 2)
        stores[2].kill()

        assert {shard_of(one) for one in submit(client, 200)} == {0, 1}
        refused = assert_problem(with_key(client, keys[2]), 503)
        assert refused["outcome"] == "not_enqueued"
        assert with_key(client, keys[0]).status_code == 202
        assert_problem(client.get(f"/jobs/{lost}"), 503)
        assert_problem(client.delete(f"/jobs/{lost}"), 503)
        _is_degraded(client)

        stores[2].start()
        assert with_key(client, keys[2]).status_code == 202
        wait_until("the shard gets jobs again", lambda: 2 in map(shard_of, submit(client, SHARDS * JOBS_IN_A_ROW)))
        assert {status(client, one) for one in old} == {"queued"}
        assert client.get("/health").json()["status"] == "healthy"


def _is_degraded(client: httpx.Client) -> None:
    health, stats, numbers = client.get("/health").json(), client.get("/queue/stats").json(), scrape(client)
    assert (health["status"], health["queue_connected"]) == ("degraded", True)
    assert health["detail"].startswith("shard 2: ")
    assert client.get("/health/ready").status_code == 200
    assert [one["shard"] for one in stats["shards"]] == [0, 1]
    assert [one.partition(":")[0] for one in stats["unreachable"]] == ["shard 2"]
    assert stats["queue_length"] == sum(one["queue_length"] for one in stats["shards"])
    assert [numbers[f"overload_store_up{{{shard}}}"] for shard in range(SHARDS)] == [1, 1, 0]
    assert "overload_queue_depth{1}" in numbers
    assert "overload_queue_depth{2}" not in numbers


def test_a_demoted_server_makes_its_shard_degraded_and_a_single_one_not_ready(tmp_path: Path) -> None:
    """At once: it still answers a PING, and the gateway leaves it within half a second."""
    settings = make_settings(tmp_path, overload_store_deadline_s=1.0)
    with (
        own_server(tmp_path / "own", "--appendonly", "yes", "--appendfsync", "always") as url,
        standalone_store(tmp_path / "first", OVERLOAD_REDIS_URL=url) as own,
        standalone_store(tmp_path / "second") as other,
    ):
        first, second = (Address(one.url, SecretStr(one.token)) for one in (own, other))
        with serving_api(settings, joined([first, second])) as both, serving_api(settings, (first, None)) as alone:
            assert {both.get("/health").json()["status"], alone.get("/health").json()["status"]} == {"healthy"}
            with valkey.Valkey.from_url(url) as admin:
                admin.replicaof("127.0.0.1", 1)
            refused, health = alone.get("/health/ready"), both.get("/health").json()
            assert assert_problem(refused, 503)["detail"]
            assert (health["status"], health["queue_connected"]) == ("degraded", True)
            assert health["detail"].startswith("shard 0: ")
            assert "shard 1" not in health["detail"]


def test_without_any_shard_the_api_is_not_ready(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, overload_store_deadline_s=1.0)
    nowhere = joined(Address(f"http://127.0.0.1:{free_port()}", SecretStr(h.TOKEN)) for _ in range(2))
    with serving_api(settings, nowhere) as client:
        assert assert_problem(client.post("/jobs", json=JOB), 503)["outcome"] == "not_enqueued"
        assert_problem(client.get("/queue/stats"), 503)
        ready = assert_problem(client.get("/health/ready"), 503)
        assert "shard 0: " in ready["detail"]
        assert "shard 1: " in ready["detail"]
        assert client.get("/health").json()["queue_connected"] is False
        numbers = scrape(client)
        assert [numbers[f"overload_store_up{{{shard}}}"] for shard in range(2)] == [0, 0]


@pytest.mark.parametrize("fault", plain_first([signal.SIGKILL, signal.SIGSTOP]), ids=["killed", "frozen"])
def test_a_fault_in_mid_crowd_leaves_only_jobs_in_flight_open(
    settings: Settings, stores: list[KillableStore], fault: signal.Signals
) -> None:
    """Jobs in a call to the shard have an unknown outcome; all others are accepted, and no accepted one is lost."""
    callers = 20
    with serving_api(settings, joined(one.address for one in stores)) as client, ThreadPoolExecutor(callers) as pool:
        answers = [pool.submit(client.post, "/jobs", json=JOB) for _ in range(1000)]
        answers[300].result()
        stores[1].signal(fault)
        bodies = [one.result().json() for one in answers]

        outcomes = Counter(body.get("outcome", body["status"]) for body in bodies)
        assert set(outcomes) <= {"accepted", "unknown"}
        assert outcomes["unknown"] <= callers
        assert {shard_of(body["job_id"]) for body in bodies if "outcome" in body} <= {1}
        accepted = [body["job_id"] for body in bodies if "outcome" not in body]
        if fault is signal.SIGKILL:
            stores[1].kill()
            stores[1].start()
        else:
            stores[1].signal(signal.SIGCONT)
        wait_until("the shard gets jobs again", lambda: 1 in map(shard_of, submit(client, SHARDS * JOBS_IN_A_ROW)))
        assert {status(client, one) for one in accepted} == {"queued"}


REFUSALS = {
    "full": h.answer(400, {"error": "OOM command not allowed when used memory > 'maxmemory'."}),
    "a read-only replica": h.answer(400, {"error": "READONLY You can't write against a read only replica."}),
    "a wrong token": h.answer(401, {"error": "WRONGPASS"}),
    "a gateway without its server": h.answer(503, {"error": "ERR nothing was done, try again"}),
    "at its bound": h.answer(200, {"result": ["7.5", "f"]}),
}


def jobs_sent(server: h.Hostile) -> set[str]:
    """The ids of all jobs in the requests to a server, repeated ones once."""
    return {one for request in server.requests for one in request.body if str(one).startswith("job_")}


@pytest.mark.anyio
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_a_job_that_one_shard_refuses_goes_to_another(
    settings: Settings, store: Store, refusal: h.Script
) -> None:
    async with h.hostile(refusal) as first:
        both = joined([first.address, sharing(store, 2)[0].others[0]])
        async with client_of(create_app(settings, both)) as client:
            answers = [await client.post("/jobs", json=JOB) for _ in range(3 * JOBS_IN_A_ROW)]

    assert {answer.status_code for answer in answers} == {202}
    assert {shard_of(answer.json()["job_id"]) for answer in answers} == {1}
    # A failed shard is left out until a probe succeeds, a full one for a moment only.
    assert len(jobs_sent(first)) == 1 or (first.requests and refusal is REFUSALS["at its bound"])
    assert depths(settings, sharing(store, 2))[1] == len(answers)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("refusals", "status", "outcome"),
    plain_first(
        [
            (["full", "full"], 503, "not_enqueued"),
            (["at its bound", "at its bound"], 429, "not_enqueued"),
            (["at its bound", "full"], 429, "not_enqueued"),
            (["at its bound", "a gateway without its server"], 429, "not_enqueued"),
            (["a read-only replica", "a wrong token"], 503, "not_enqueued"),
        ],
        3,
    ),
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
async def test_a_job_that_all_shards_refuse_is_refused_once(
    tmp_path: Path, refusals: list[str], status: int, outcome: str
) -> None:
    settings = make_settings(tmp_path, overload_store_deadline_s=1.0)
    async with h.hostile(REFUSALS[refusals[0]]) as first, h.hostile(REFUSALS[refusals[1]]) as second:
        async with client_of(create_app(settings, joined([first.address, second.address]))) as client:
            plain = [await client.post("/jobs", json=JOB) for _ in range(2)]
            keyed = await client.post("/jobs", json=JOB, headers={"Idempotency-Key": "k"})

    for answer in plain:
        assert assert_problem(answer, status)["outcome"] == outcome
        assert int(answer.headers["retry-after"]) >= 1
    assert assert_problem(keyed, keyed.status_code)["outcome"] == outcome
    if refusals[0] == "at its bound":  # no job is offered to it twice
        assert len(first.requests) == len(jobs_sent(first))


@pytest.mark.anyio
async def test_a_job_with_a_key_waits_for_its_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overload_demo.queue.producer.UNSENT_S", 0.0)
    scripts = [*[REFUSALS["a read-only replica"]] * 4, h.answer(200, {"result": ["0", "+"]})]
    async with h.hostile(*scripts) as first, h.hostile(*scripts) as second:
        async with client_of(create_app(make_settings(tmp_path), joined([first.address, second.address]))) as client:
            answer = await client.post("/jobs", json=JOB, headers={"Idempotency-Key": "k"})

    assert answer.status_code == 202
    [shard] = [number for number, one in enumerate([first, second]) if one.requests]
    assert shard_of(answer.json()["job_id"]) == shard


@pytest.mark.anyio
async def test_jobs_that_a_silent_shard_has_not_been_sent_go_to_another(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, overload_store_deadline_s=8.0, overload_max_batch=JOBS_IN_A_ROW)
    async with h.hostile(h.stay_silent) as first:
        both = joined([first.address, sharing(store, 2)[0].others[0]])
        async with client_of(create_app(settings, both)) as client:
            answers = await asyncio.gather(*(client.post("/jobs", json=JOB) for _ in range(10 * JOBS_IN_A_ROW)))

    outcomes = Counter(answer.json().get("outcome", "accepted") for answer in answers)
    assert set(outcomes) == {"accepted", "unknown"}
    assert outcomes["accepted"] > len(answers) / 2, "some were meant for the silent shard"
    assert outcomes["unknown"] == len(jobs_sent(first))
    assert outcomes["accepted"] == depths(settings, sharing(store, 2))[1]
