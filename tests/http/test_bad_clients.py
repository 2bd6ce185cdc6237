"""Bad clients: none enqueues part of a job, blocks a connection for long, or displaces a well-behaved client."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from overload_demo.config import Settings
from overload_demo.process import raise_descriptor_limit
from overload_demo.store.connect import Store
from tests.support.network import Network
from tests.support.running import api_process, make_settings, serving_api, submit
from tests.support.sockets import (
    BODY,
    CHUNKED_HEAD,
    connections,
    post,
    read_answer,
    reset,
    was_closed,
)
from tests.support.stores import in_store
from tests.support.waiting import wait_until

MEGABYTE = b"a" * 1_000_000


@pytest.fixture
def client(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    """A client of an API with its own queue."""
    with serving_api(settings, store) as one:
        yield one


def accepted(client: httpx.Client) -> int:
    return int(client.get("/queue/stats").json()["accepted"])


def test_a_thousand_silent_connections_are_closed_and_later_ones_served(tmp_path: Path, store: Store) -> None:
    if raise_descriptor_limit() < 2_000:
        pytest.skip("too few descriptors for a thousand clients and a server in one process")
    settings = make_settings(tmp_path, overload_request_patience_s=0.3, overload_max_connections=400)
    with serving_api(settings, store) as client:
        with connections(client, 1000) as silent, connections(client, 10) as good:
            for connection in good:
                connection.sendall(post())

            assert [read_answer(connection).status for connection in good] == [202] * 10
            submit(client, 5)
            assert all(was_closed(connection) for connection in silent)
        assert accepted(client) == 15


TRICKLES = {
    "a request line": (b"GET /", b"x"),
    "a header": (b"POST /jobs HTTP/1.1\r\nHost: ", b"x"),
    "headers": (b"POST /jobs HTTP/1.1\r\n", b"X: y\r\n"),
    "a body": (post(b'{"name":"', declared=60_000), b"x"),
    "a body whose job is complete": (post(declared=60_000), b" "),
    "a chunk": (CHUNKED_HEAD + b"%x\r\n" % 60_000 + BODY, b" "),
    "small chunks": (CHUNKED_HEAD + b"%x\r\n%b\r\n" % (len(BODY), BODY), b"1\r\n \r\n"),
    "trailers": (CHUNKED_HEAD + b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY), b"X: y\r\n"),
}


@pytest.mark.parametrize("where", TRICKLES)
def test_a_slow_sender_is_disconnected(tmp_path: Path, store: Store, where: str) -> None:
    beginning, drop = TRICKLES[where]
    settings = make_settings(tmp_path, overload_request_patience_s=0.3)
    with serving_api(settings, store) as client, connections(client, 1) as [slow]:
        slow.sendall(beginning)

        wait_until("it is disconnected", lambda: is_disconnected(slow, drop))

        submit(client)
        jobs, queued = in_store(settings, store)
        assert (len(jobs), len(queued)) == (1, 1)


def is_disconnected(connection: socket.socket, drop: bytes) -> bool:
    """Send a few bytes more; whether the connection is closed."""
    try:
        connection.sendall(drop)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_blank_lines_after_a_response_do_not_keep_a_connection_open(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, overload_request_patience_s=0.3)
    with serving_api(settings, store) as client, connections(client, 1) as [slow]:
        slow.sendall(post())
        assert read_answer(slow).status == 202

        wait_until("it is disconnected", lambda: is_disconnected(slow, b"\r\n"))


def test_a_client_that_reads_no_responses_is_disconnected(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, overload_request_patience_s=0.3)
    with serving_api(settings, store) as client, socket.socket() as slow_reader:
        slow_reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow_reader.settimeout(20)
        slow_reader.connect((client.base_url.host, client.base_url.port))
        slow_reader.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)

        wait_until("it is disconnected", lambda: is_disconnected(slow_reader, b"\r\n"))


FLOODS = {
    "a header without an end": b"GET / HTTP/1.1\r\nX: " + MEGABYTE * 64,
    "requests without an end": b"GET / HTTP/1.1\r\n\r\n" * 3_000_000,
}


def test_no_client_makes_the_memory_of_the_api_grow(tmp_path: Path, own_queue: dict[str, object]) -> None:
    """Each of these clients once took hundreds of megabytes, because everything parsed was kept."""
    with api_process(tmp_path, **own_queue) as (api, client):
        submit(client)
        assert api.pid is not None
        memory = psutil.Process(api.pid).memory_info
        bound = memory().rss + 24_000_000
        for name, flood in FLOODS.items():
            with connections(client, 1) as [connection]:
                sent = send_until(connection, flood, lambda: memory().rss > bound)

            assert memory().rss < bound, f"after {sent} bytes of {name}"
        submit(client)


def send_until(connection: socket.socket, flood: bytes, is_enough: Callable[[], bool]) -> int:
    """Send as fast as the server reads, and read; returns the bytes sent before the end or the limit.

    The end: all is sent, the other side has closed, or has answered a thousand times.
    """
    connection.settimeout(0.005)
    sent = received = 0
    while sent < len(flood) and received < 250_000 and not is_enough():
        with contextlib.suppress(TimeoutError):
            sent += connection.send(flood[sent : sent + 262_144])
        with contextlib.suppress(TimeoutError):
            chunk = connection.recv(65_536)
            if not chunk:
                break
            received += len(chunk)
    return sent


def test_half_closed_connections_without_a_request_are_closed(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, overload_request_patience_s=60, overload_max_connections=8)
    with serving_api(settings, store) as client, connections(client, 30) as silent:
        for connection in silent:
            connection.shutdown(socket.SHUT_WR)

        assert all(was_closed(connection) for connection in silent)
        submit(client)


def test_an_upgraded_connection_still_counts_at_the_gate(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a WebSocket library is installed, uvicorn would hand the connection over to it."""
    monkeypatch.setattr("uvicorn.protocols.websockets.auto.AutoWebSocketsProtocol", object)
    upgrade = (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with serving_api(make_settings(tmp_path), store) as client, connections(client, 1) as [connection]:
        connection.sendall(upgrade)

        assert read_answer(connection).status == 200


@contextmanager
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.clear()
    yield
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_clients_that_disconnect_early_leave_whole_jobs_or_none(
    settings: Settings, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with no_errors_logged(caplog), Network(store).serving() as network, serving_api(settings, network.store) as client:
        submit(client)
        network.delay_s = 0.3
        with connections(client, 120) as gone:
            for connection in gone:
                connection.sendall(post())
            for connection in gone[::2]:
                connection.close()
            for connection in gone[1::2]:
                reset(connection)
        network.delay_s = 0.0
        submit(client)  # it still serves

        wait_until("all is settled", lambda: no_connection_is_served(client))
        jobs, queued = in_store(settings, store)
        assert sorted(queued) == sorted(jobs)
        assert len(jobs) > 2
        for job_id, job in jobs.items():
            assert job.keys() == {"job_id", "payload", "status", "created_at", "seq"}
            assert client.get(f"/jobs/{job_id}").json()["status"] == "queued"
        assert sorted(int(job["seq"]) for job in jobs.values()) == list(range(1, len(jobs) + 1))
        assert accepted(client) == len(jobs)


def no_connection_is_served(client: httpx.Client) -> bool:
    """Whether the client's own connection is the only one left."""
    port = client.base_url.port
    served = [one for one in psutil.Process().net_connections() if one.laddr and one.laddr.port == port and one.raddr]
    return len(served) <= 1
