"""A slow or lossy network to the store, or one with a size limit: clients get an outcome in time."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from overload_demo.queue.group_commit import MAX_CALL_BYTES
from overload_demo.store.connect import Store
from tests.support.cases import plain_first
from tests.support.network import Network
from tests.support.running import JOB, make_settings, serving_api, submit
from tests.support.sockets import answers_until_closed, connections, post, read_answer
from tests.support.stores import in_store, payload_in_store

AGES_S = 10.0
TIMEOUT_S = 15.0  # of the clients here: far more than the deadlines below
EVALSHA_BYTES = 8_192  # of a call besides its jobs, with the script's text


@pytest.fixture
def network(store: Store) -> Iterator[Network]:
    with Network(store).serving() as one:
        yield one


def post_at_once(client: httpx.Client, bodies: list[Any]) -> list[httpx.Response]:
    """Send each body over its own connection, all at the same time."""

    async def run() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=client.base_url, timeout=client.timeout, trust_env=False, limits=limits
        ) as crowd:
            return await asyncio.gather(*(crowd.post("/jobs", json=body) for body in bodies))

    return asyncio.run(run())


def assert_store_problem(answer: httpx.Response) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert int(answer.headers["retry-after"]) >= 1
    assert problem["outcome"] in {"unknown", "not_enqueued"}
    assert ("job_id" in problem) == (problem["outcome"] == "unknown")
    return problem


@pytest.mark.parametrize("loses_requests", [False, True], ids=["answers come late", "requests are lost"])
def test_over_a_slow_store_every_client_gets_an_id_to_poll_in_time(
    tmp_path: Path, store: Store, network: Network, loses_requests: bool
) -> None:
    settings = make_settings(tmp_path, overload_store_deadline_s=1.0)
    with serving_api(settings, network.store) as client:
        [before] = submit(client)
        network.delay_s, network.loses_requests = AGES_S, loses_requests
        client.timeout = TIMEOUT_S
        problems = [assert_store_problem(answer) for answer in post_at_once(client, [JOB] * 100)]
        meanwhile = [client.get(f"/jobs/{before}"), client.get("/queue/stats"), client.get("/health/ready")]
        health = client.get("/health")

        network.delay_s, network.loses_requests = 0.0, False
        [after] = submit(client)
        unknown = {problem["job_id"] for problem in problems if problem["outcome"] == "unknown"}
        polled = {job_id: client.get(f"/jobs/{job_id}").status_code for job_id in unknown}

    assert [answer.status_code for answer in meanwhile] == [503] * 3
    assert health.json()["status"] == "degraded"
    assert unknown
    jobs, queued = in_store(settings, store)
    assert sorted(queued) == sorted(jobs)
    assert polled == {job_id: 200 if job_id in jobs else 404 for job_id in unknown}
    assert unknown.isdisjoint(jobs) if loses_requests else not unknown.isdisjoint(jobs)
    assert jobs.keys() - unknown == {before, after}  # a response not_enqueued is true


def test_a_client_that_waits_for_a_slow_store_is_not_closed_as_stalled(
    tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither half-closed clients nor those with an unfinished further request are closed."""
    monkeypatch.setattr("overload_demo.api.front_door.gate.CHECK_EVERY_S", 0.001)
    settings = make_settings(tmp_path, overload_request_patience_s=1.0)
    with serving_api(settings, network.store) as client, connections(client, 3) as [one, one_and_a_half, two]:
        network.delay_s = 2.0
        one.sendall(post())
        one_and_a_half.sendall(post() + post()[:-1])
        two.sendall(post() + post()[:-1])
        one.shutdown(socket.SHUT_WR)
        one_and_a_half.shutdown(socket.SHUT_WR)
        first = read_answer(two)
        assert client.get("/nowhere").status_code == 404  # the gate has had time for a check
        two.sendall(post()[-1:])
        answers = [answers_until_closed(connection) for connection in (one, one_and_a_half)]

        assert [[answer.status for answer in each] for each in answers] == [[202], [202, 400]]
        assert [first.status, read_answer(two).status] == [202, 202]


def test_requests_beyond_the_waiting_limit_are_refused_at_once(
    tmp_path: Path, store: Store, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overload_demo.queue.group_commit.MAX_WAITING", 10)
    settings = make_settings(tmp_path)
    with serving_api(settings, network.store) as client:
        submit(client)
        network.delay_s = 0.5
        answers = post_at_once(client, [JOB] * 60)
        network.delay_s = 0.0
        submit(client)

    refused = [assert_store_problem(answer) for answer in answers if answer.status_code != 202]
    assert 0 < len(refused) < 60
    assert {problem["outcome"] for problem in refused} == {"not_enqueued"}
    jobs, _ = in_store(settings, store)
    assert len(jobs) == 62 - len(refused)


LARGE_TEXTS = {
    "plain": "x" * 60_000,
    "quotes and backslashes": '"\\' * 14_000,
    "umlauts": "\u00e4" * 30_000,
    "emoji": "\U0001f4a9" * 15_000,
    "control characters": "\x7f" * 60_000,
}


@pytest.mark.parametrize("kind", plain_first(LARGE_TEXTS, 2))
def test_large_jobs_are_sent_in_several_calls_of_bounded_size(
    tmp_path: Path, store: Store, network: Network, kind: str
) -> None:
    settings = make_settings(tmp_path)
    bodies = [{"name": "n", "value": value, "message": LARGE_TEXTS[kind]} for value in range(24)]
    with serving_api(settings, network.store) as client:
        submit(client)
        network.delay_s, network.late_answers = 0.5, 2  # of both calls; meanwhile the rest gathers
        answers = post_at_once(client, bodies)

    assert [answer.status_code for answer in answers] == [202] * 24
    assert MAX_CALL_BYTES / 4 < max(network.sizes) <= MAX_CALL_BYTES + EVALSHA_BYTES
    stored = [payload_in_store(settings, store, answer.json()["job_id"]) for answer in answers]
    assert stored == bodies


def test_a_request_too_large_for_the_store_is_not_enqueued(tmp_path: Path, store: Store, network: Network) -> None:
    settings = make_settings(tmp_path)
    large = JOB | {"message": "x" * 20_000}
    with serving_api(settings, network.store) as client:
        submit(client)
        network.delay_s, network.largest_request = 0.3, 50_000
        answers = post_at_once(client, [large] * 40)
        network.delay_s = 0.0
        submit(client)

    accepted = [answer.json()["job_id"] for answer in answers if answer.status_code == 202]
    refused = [assert_store_problem(answer) for answer in answers if answer.status_code != 202]
    assert {problem["outcome"] for problem in refused} == {"not_enqueued"}
    jobs, queued = in_store(settings, store)
    assert sorted(queued) == sorted(jobs)
    assert jobs.keys() >= set(accepted)
    assert len(jobs) == 2 + len(accepted)
