"""``GET /metrics`` of the API: the counts equal what clients saw, over all processes, dead ones included."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from pydantic import SecretStr

from overload_demo.config import Settings
from overload_demo.process import Child
from overload_demo.rest.client import Address
from overload_demo.store.connect import Store
from tests.http.test_api_parent import fire, parent_of, serving
from tests.http.test_jobs_contract import assert_problem
from tests.support import sockets
from tests.support.running import JOB, free_port, make_settings, send_signal, serving_api, submit, wait_for, working
from tests.support.scraping import Numbers, buckets_in, numbers_in, scrape
from tests.support.waiting import wait_until

QUEUE = ("overload_queue", "overload_jobs", "overload_workers", "overload_dead_letters")


@pytest.fixture
def client(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    with serving_api(settings, store) as one:
        yield one


def answered(client: httpx.Client) -> Numbers:
    """The counted responses by status, without scrapes and other 200s."""
    start = "overload_http_requests_total{"
    counts = {name.removeprefix(start).rstrip("}"): n for name, n in scrape(client).items() if name.startswith(start)}
    return {status: count for status, count in counts.items() if count and status != "200"}


def test_every_response_is_counted_by_its_status(client: httpx.Client) -> None:
    """Responses of the direct path, of FastAPI, of the exception handlers, and of the connection itself."""
    submit(client, 3)
    client.post("/jobs", json=JOB, headers={"Idempotency-Key": "k"})
    client.post("/jobs", content=b"x", headers={"Content-Type": "application/json"})
    client.post("/jobs", json={"name": 1})
    client.post("/jobs", content=b"x")
    client.get("/nothing")
    client.put("/jobs")
    with sockets.connections(client, 2) as (nonsense, large_head):
        nonsense.sendall(b"nonsense\r\n\r\n")
        large_head.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n")
        assert [sockets.read_answer(one).status for one in (nonsense, large_head)] == [400, 431]

    assert answered(client) == {"202": 4, "400": 2, "404": 1, "405": 1, "415": 1, "422": 1, "431": 1}


def test_pipelined_requests_and_one_with_expect_continue_are_counted_once(
    client: httpx.Client,
) -> None:
    with sockets.connections(client, 2) as (pipelined, expecting):
        pipelined.sendall(sockets.post() * 5)
        expecting.sendall(sockets.post(more_headers=b"Expect: 100-continue\r\n"))
        assert [sockets.read_answer(pipelined).status for _ in range(5)] == [202] * 5
        assert b"202" in _read_to_the_end_of_an_answer(expecting)

    numbers = scrape(client)
    assert answered(client) == {"202": 6}
    assert numbers["overload_acceptance_seconds_count"] == 6


def _read_to_the_end_of_an_answer(connection: socket.socket) -> bytes:
    read = b""
    while not read.endswith(b"}"):
        read += connection.recv(4096)
    return read


def test_latency_batches_and_commits_add_up_to_the_accepted_jobs(client: httpx.Client) -> None:
    submit(client, 7)
    client.post("/jobs", json={"name": 1})

    text = client.get("/metrics").text
    numbers = numbers_in(text)
    assert numbers["overload_acceptance_seconds_count"] == numbers["overload_jobs_accepted_total"] == 7
    assert numbers["overload_commit_batch_jobs_sum"] == 7
    assert numbers["overload_commit_batch_jobs_count"] == numbers["overload_commit_seconds_count"] == 7
    assert 0 < numbers["overload_commit_seconds_sum"] < numbers["overload_acceptance_seconds_sum"] < 60
    buckets = list(buckets_in(text, "overload_acceptance_seconds").values())
    assert buckets == sorted(buckets)
    assert buckets[-1] == 7


def test_the_queues_metrics_equal_its_statistics(settings: Settings, store: Store, client: httpx.Client) -> None:
    with working(settings, store):
        wait_for(client, submit(client, 5))
    submit(client, 2)
    [cancelled] = submit(client)
    client.delete(f"/jobs/{cancelled}")

    numbers, stats = scrape(client), client.get("/queue/stats").json()

    for name, field in {
        "overload_queue_depth": "queue_length",
        "overload_jobs_in_flight": "in_flight",
        "overload_workers_alive": "workers_alive",
        "overload_jobs_accepted_total": "accepted",
        "overload_jobs_done_total": "done",
        "overload_jobs_cancelled_total": "cancelled",
    }.items():
        assert numbers[name] == stats[field], name
    assert (stats["queue_length"], stats["done"], stats["cancelled"]) == (2, 5, 1)
    assert numbers["overload_store_up"] == 1
    assert numbers["overload_queue_oldest_age_seconds"] > 0
    assert numbers["overload_jobs_drained_per_second"] > 0


def test_without_the_store_the_queues_metrics_are_absent(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, overload_store_deadline_s=0.2)
    nowhere = Address(f"http://127.0.0.1:{free_port()}", SecretStr("a-token-of-the-test"))
    with serving_api(settings, (nowhere, None)) as client:
        assert_problem(client.post("/jobs", json=JOB), 503)

        numbers = scrape(client)

    assert numbers["overload_store_up"] == 0
    assert [name for name in numbers if name.startswith(QUEUE)] == []
    assert numbers["overload_http_requests_total{503}"] == 1
    assert numbers["overload_store_errors_total{unavailable}"] >= 1
    assert numbers["overload_acceptance_seconds_count"] == 0


def test_a_refused_token_is_counted_as_an_auth_error(tmp_path: Path, store: Store) -> None:
    wrong_token = Address(store[0].url, SecretStr("wrong"))
    with serving_api(make_settings(tmp_path), (wrong_token, None)) as client:
        client.post("/jobs", json=JOB)

        numbers = scrape(client)

    assert numbers["overload_store_errors_total{auth}"] >= 1
    assert numbers["overload_store_errors_total{unavailable}"] == 0


def test_connections_and_pauses_are_reported(tmp_path: Path, store: Store) -> None:
    with serving_api(make_settings(tmp_path, overload_max_connections=8), store) as client:
        scrape(client)  # on a connection that is kept
        with sockets.connections(client, 5):
            wait_until("all are inside", lambda: scrape(client)["overload_live_connections"] == 6)
            assert scrape(client)["overload_accepting_paused"] == 0
        wait_until("the connections are closed", lambda: scrape(client)["overload_live_connections"] == 1)
        assert scrape(client)["overload_accepting_pauses_total"] == 0

        with sockets.connections(client, 20) as crowd:
            for connection in crowd:
                connection.sendall(sockets.post())
            assert [sockets.read_answer(connection).status for connection in crowd] == [202] * 20

        numbers = scrape(client)
        assert numbers["overload_accepting_pauses_total"] >= 1
        wait_until("accepting resumes", lambda: scrape(client)["overload_accepting_paused"] == 0)


def test_a_scrape_at_the_cap_reports_the_pause(tmp_path: Path, store: Store) -> None:
    with serving_api(make_settings(tmp_path, overload_max_connections=8), store) as client:
        with sockets.connections(client, 8) as inside, sockets.connections(client, 1):
            wait_until("it is full", lambda: scrape_on(inside[0])["overload_accepting_paused"] == 1)


def scrape_on(connection: socket.socket) -> Numbers:
    """A scrape on a given connection, which stays open only while there is no crowd."""
    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    read = b""
    while b"\r\n\r\n" not in read:
        read += connection.recv(65_536)
    head, _, body = read.partition(b"\r\n\r\n")
    [length] = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    while len(body) < length:
        body += connection.recv(65_536)
    return numbers_in(body.decode())


def test_openmetrics_is_returned_on_request(client: httpx.Client) -> None:
    submit(client)
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"

    answer = client.get("/metrics", headers={"Accept": accept})

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in openmetrics_families(answer.text)}
    assert families["overload_jobs_accepted"].samples[0].value == 1


def test_metrics_need_a_key_if_keys_are_set(tmp_path: Path, store: Store) -> None:
    key = "ada-key-0123456789abcdef"
    with serving_api(make_settings(tmp_path, overload_api_keys=key), store) as client:
        assert_problem(client.get("/metrics"), 401)
        client.headers["Authorization"] = f"Bearer {key}"

        assert answered(client) == {"401": 1}


def test_one_scrape_covers_all_processes_and_a_kill_lowers_no_counter(
    tmp_path: Path, own_queue: dict[str, object]
) -> None:
    with parent_of(2, tmp_path, **own_queue) as (parent, url), httpx.Client(base_url=url, trust_env=False) as client:
        fire(url, 300)
        wait_until("all are counted", lambda: scrape(client)["overload_http_requests_total{202}"] == 300)
        before = scrape(client)
        assert before["overload_http_requests_total{202}"] == before["overload_acceptance_seconds_count"] == 300
        assert before["overload_commit_batch_jobs_sum"] == 300
        client.close()
        [first, second] = serving(parent)

        with httpx.Client(base_url=url, trust_env=False) as other, sockets.connections(other, 20):
            wait_until("they are inside", lambda: _scrape_anew(url)["overload_live_connections"] == 21)
            for victim in (first, second):
                os.kill(victim, signal.SIGKILL)
                wait_until("it has a successor", lambda: len(serving(parent) - {first, second}) >= 1)
        wait_until("two serve", lambda: len(serving(parent) - {first, second}) == 2)

        after = _scrape_anew(url)
        assert after["overload_http_requests_total{202}"] == after["overload_acceptance_seconds_count"] == 300
        assert after["overload_live_connections"] == 1
        fire(url, 100)
        wait_until("all are counted", lambda: _scrape_anew(url)["overload_http_requests_total{202}"] == 400)


def _scrape_anew(url: str) -> Numbers:
    """A scrape on a new connection, which any of the processes may answer."""
    with httpx.Client(base_url=url, trust_env=False, timeout=30.0) as client:
        return scrape(client)


def replace_all(parent: Child) -> None:
    old = serving(parent)
    send_signal(parent, signal.SIGHUP)
    wait_until("both are new", lambda: len(serving(parent)) == 2 and not serving(parent) & old, timeout_s=30.0)


@pytest.mark.exhaustive
def test_connections_of_a_dead_process_are_not_reported(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with parent_of(1, tmp_path, **own_queue, OVERLOAD_GRACE_S=0) as (parent, url):
        with httpx.Client(base_url=url, trust_env=False) as client, sockets.connections(client, 5):
            wait_until("they are inside", lambda: scrape(client)["overload_live_connections"] == 6)
            [stuck] = old = serving(parent)
            os.kill(stuck, signal.SIGSTOP)  # so that it is killed without a clean end
            send_signal(parent, signal.SIGHUP)
            wait_until("it is new", lambda: len(serving(parent)) == 1 and not serving(parent) & old, timeout_s=30.0)

        assert _scrape_anew(url)["overload_live_connections"] == 1


@pytest.mark.exhaustive
def test_a_rolling_restart_keeps_the_counts(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with parent_of(2, tmp_path, **own_queue) as (parent, url):
        for _ in range(2):  # the free row is reused
            fire(url, 75)
            replace_all(parent)

        numbers = _scrape_anew(url)

    assert numbers["overload_http_requests_total{202}"] == numbers["overload_jobs_accepted_total"] == 150
    assert numbers["overload_live_connections"] == 1
