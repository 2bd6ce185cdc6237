"""The front door: a crowd waits in the kernel, no client is refused, and silent clients are disconnected."""

import asyncio
import gc
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from overload_demo.api.direct import DirectRequest
from overload_demo.api.front_door.connection import GatedProtocol
from overload_demo.api.front_door.gate import connection_cap
from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.http_server import listen, url_of
from overload_demo.load import LoadPlan, Shape, run_load
from overload_demo.process import Child
from overload_demo.store.connect import Store
from tests.support.running import JOB, api_process, child, make_settings, serving_api
from tests.support.sockets import connections, post, read_answer, was_closed
from tests.support.waiting import wait_until


@contextmanager
def low_descriptor_limit(limit: int) -> Iterator[None]:
    """Children started in the block inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_crowd_far_above_the_cap_is_answered_completely(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with api_process(tmp_path, **own_queue, OVERLOAD_MAX_CONNECTIONS=20) as (api, client):
        assert client.get("/health").status_code == 200
        assert api.pid is not None
        server, most_open = psutil.Process(api.pid), 0
        before = server.num_fds()

        def look(_: object) -> None:
            nonlocal most_open
            most_open = max(most_open, server.num_fds() - before)

        plan = LoadPlan(str(client.base_url), requests=2000, shape=Shape.AT_ONCE, timeout_s=60)
        summary = asyncio.run(run_load(plan, on_progress=look)).summary()

        assert (summary.accepted, summary.failures) == (2000, {})
        assert summary.health.peak_open_sockets > 1000
        assert 0 < most_open <= 30
        assert client.get("/queue/stats").json()["accepted"] == 2000


@pytest.mark.parametrize("ending", [{}, {"connection": "close"}], ids=["kept", "closed"])
def test_requests_leave_no_reference_cycles(tmp_path: Path, store: Store, ending: dict[str, str]) -> None:
    def still_held() -> list[object]:
        return [one for one in gc.get_objects() if isinstance(one, DirectRequest | GatedProtocol)]

    gc.disable()
    try:
        with serving_api(make_settings(tmp_path), store) as client:
            for _ in range(3):
                job = client.post("/jobs", json=JOB, headers=ending)
                assert client.get(job.headers["location"], headers=ending).status_code == 200
                assert client.post("/jobs", json={}, headers=ending).status_code == 422  # FastAPI's
        wait_until("no request or connection is held", lambda: not still_held())
    finally:
        gc.enable()


def test_256_descriptors_are_enough_for_a_thousand_sockets(tmp_path: Path) -> None:
    with low_descriptor_limit(256):
        assert connection_cap(load_settings(), in_use=16) < 200
        starting = api_process(tmp_path)
        _, client = starting.__enter__()
    try:
        wait_until("it serves", lambda: client.get("/health").status_code == 200)
        plan = LoadPlan(str(client.base_url), requests=1000, shape=Shape.AT_ONCE, timeout_s=60)

        summary = asyncio.run(run_load(plan)).summary()

        assert (summary.accepted, summary.failures) == (1000, {})
    finally:
        starting.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        ({}, 1_000, 2_000),
        ({"overload_max_connections": 50}, 50, 50),
        ({"overload_connections_mb": 16, "overload_max_body_bytes": 65_536}, 80, 100),
        ({"overload_connections_mb": 16, "overload_max_body_bytes": 1_000}, 300, 400),
        ({"overload_connections_mb": 1}, 8, 8),
    ],
)
def test_the_cap_keeps_within_the_setting_and_the_memory_budget(changes: dict[str, int], least: int, most: int) -> None:
    assert least <= connection_cap(load_settings(**changes), in_use=31) <= most


def test_silent_and_slow_senders_are_closed_and_others_served(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, overload_request_patience_s=0.3, overload_max_connections=8)
    with serving_api(settings, store) as client:
        with connections(client, 9) as silent:
            silent[-1].sendall(post()[:-10])

            assert client.get("/health").status_code == 200

            assert all(was_closed(connection) for connection in silent)
        assert client.get("/queue/stats").json()["accepted"] == 0


@pytest.mark.exhaustive
def test_connections_up_to_the_cap_do_not_pause_accepting(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, overload_max_connections=8)
    with serving_api(settings, store) as client:
        # A place counted twice, for the instant in which a connection is set up, shows in one of ten rounds.
        for _ in range(100):
            with connections(client, 8) as guests:
                for connection in guests:
                    connection.sendall(post())
                    answer = read_answer(connection)

                    assert answer.status == 202
                    assert "connection" not in answer.headers
                for connection in guests:
                    connection.shutdown(socket.SHUT_WR)
                    assert was_closed(connection)


def test_a_connection_that_is_idle_for_long_is_closed_after_direct_and_other_responses(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overload_demo.api.front_door.gate.KEEP_ALIVE_S", 0.2)
    monkeypatch.setattr("overload_demo.api.front_door.gate.CHECK_EVERY_S", 0.05)
    head = b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving_api(make_settings(tmp_path), store) as client, connections(client, 2) as (direct, other):
        direct.sendall(post())
        other.sendall(b"GET /health" + head)
        assert [read_answer(one).status for one in (direct, other)] == [202, 200]

        assert [one.recv(1) for one in (direct, other)] == [b"", b""]


def test_idle_connections_are_closed_while_others_wait(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, overload_max_connections=8)
    with serving_api(settings, store) as client, connections(client, 8) as idle:
        for connection in idle:
            connection.sendall(post())
            assert read_answer(connection).status == 202

        with connections(client, 1) as [late]:
            late.sendall(post())
            answer = read_answer(late)

        assert (answer.status, answer.headers["connection"]) == (202, "close")


def test_a_stop_answers_the_connections_in_the_accept_queue(tmp_path: Path, own_queue: dict[str, object]) -> None:
    api = child("overload_demo.api", "--port", "0", folder=tmp_path, **own_queue, OVERLOAD_MAX_CONNECTIONS=8)
    api.start()
    try:
        with httpx.Client(base_url=url_of_the_api(api)) as client, connections(client, 60) as crowd:
            for connection in crowd:
                connection.sendall(post())

            api.stop()

            assert [read_answer(connection).status for connection in crowd] == [202] * 60
    finally:
        api.stop()


def test_a_stop_sends_connection_close_to_every_active_client(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with api_process(tmp_path, **own_queue) as (api, client), connections(client, 4) as active:
        left = [connection for connection in active if stays_open(connection)]
        api.terminate()

        while left:  # in turn: when the API begins to stop, almost all are between two requests
            left = [connection for connection in left if stays_open(connection)]

        wait_until("it has ended", lambda: api.pid is None)


def url_of_the_api(api: Child) -> str:
    """The URL in its log, once it listens."""
    wait_until("it listens", lambda: "serving at " in api.log.read_text())
    return re.findall(r"serving at (\S+),", api.log.read_text())[0]


def stays_open(connection: socket.socket) -> bool:
    """Whether the connection stays open after one more request, which must be accepted."""
    connection.sendall(post())
    answer = read_answer(connection)
    assert answer.status == 202
    return answer.headers.get("connection") != "close"


def test_connections_that_wait_after_the_grace_period_are_reset_and_counted(
    tmp_path: Path, own_queue: dict[str, object]
) -> None:
    limits = {"OVERLOAD_MAX_CONNECTIONS": 8, "OVERLOAD_GRACE_S": 0.2, "OVERLOAD_REQUEST_PATIENCE_S": 60}
    api = child("overload_demo.api", "--port", "0", folder=tmp_path, **own_queue, **limits)
    api.start()
    try:
        with httpx.Client(base_url=url_of_the_api(api)) as client, connections(client, 30) as silent:
            wait_until("the cap is reached", lambda: has_open(api, silent, 8))

            api.stop()

            assert all(was_closed(connection) for connection in silent)
        assert "22 connections were still waiting after 0.2 s and are reset" in api.log.read_text()
    finally:
        api.stop()


def has_open(api: Child, crowd: list[socket.socket], count: int) -> bool:
    """Whether the API has accepted that many of a crowd."""
    assert api.pid is not None
    theirs = {connection.getsockname()[1] for connection in crowd}
    inside = [one for one in psutil.Process(api.pid).net_connections() if one.raddr and one.raddr.port in theirs]
    return len(inside) == count


def test_a_taken_port_is_refused_even_to_sockets_that_share() -> None:
    group = listen("127.0.0.1", 0)
    try:
        port = int(url_of(group).rpartition(":")[2])
        with pytest.raises(ConfigurationError, match="cannot listen"):
            listen("127.0.0.1", port)
    finally:
        for listener in group:
            listener.close()
