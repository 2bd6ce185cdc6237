"""One request does not stall all others: blocking commands, endless scripts, dead connections."""

import asyncio
import concurrent.futures
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError, Outcome, StoreUnavailableError
from overload_demo.store.connect import EmbeddedStore
from overload_demo.store.gateway.backing_server import ExternalServer
from overload_demo.store.gateway.resp import RedisConnection, pack
from overload_demo.store.gateway.upstream import Upstream
from tests.crash.test_store_external_server import own_server
from tests.support.cases import plain_first
from tests.support.stores import Rest, standalone_store
from tests.support.waiting import wait_until, wait_until_async

ENDLESS = "while true do end"
# 1.5 s of CPU: several probes. TIME stands still in a script until it exceeds the server's limit.
SLOW = "local ends = os.clock() + 1.5 repeat until os.clock() > ends return 'done'"
WRITES_ENDLESSLY = "redis.call('SET', 'half', 'done') while true do end"


@contextlib.contextmanager
def meanwhile(rest: Rest, *command: Any) -> Iterator["concurrent.futures.Future[Any]"]:
    """Send a command in the background; the future is its reply."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool.submit(rest.post, "/", command)


@pytest.mark.parametrize("call", plain_first([["EVAL", ENDLESS, 0], ["FCALL", "endless", 0]]), ids=lambda call: call[0])
def test_an_endless_script_is_killed_and_the_store_keeps_serving(tmp_path: Path, call: list[Any]) -> None:
    with standalone_store(tmp_path) as rest:
        rest.run("SET", "k", "v")
        rest.run("FUNCTION", "LOAD", f"#!lua name=l\nredis.register_function('endless', function() {ENDLESS} end)")
        with meanwhile(rest, *call) as stuck:
            wait_until("others are served", lambda: rest.post("/", ["GET", "k"]).body == {"result": "v"})
            reply = stuck.result(60)
        assert (reply.status, "killed by user" in reply.body["error"]) == (400, True), reply


def test_an_endless_script_that_has_written_is_undone_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    with standalone_store(tmp_path) as rest:
        rest.run("SET", "k", "v")
        with meanwhile(rest, "EVAL", WRITES_ENDLESSLY, 0) as stuck:
            reply = stuck.result(60)
            assert (reply.status, "the outcome is unknown" in reply.body["error"]) == (503, True), reply
        wait_until("others are served", lambda: rest.post("/", ["GET", "k"]).body == {"result": "v"})
        assert rest.run("EXISTS", "half") == 0


@pytest.mark.exhaustive
def test_a_slow_script_is_left_to_end_and_keeps_its_connection(tmp_path: Path) -> None:
    with standalone_store(tmp_path) as rest:
        with socket.socket(socket.AF_UNIX) as server:  # 2 s, the usual limit, may pass on a machine with too few cores
            server.connect(str(tmp_path / "redis.sock"))
            server.sendall(b"CONFIG SET lua-time-limit 60000\r\n")
            assert server.recv(100) == b"+OK\r\n"
        with concurrent.futures.ThreadPoolExecutor() as pool:
            slow_one = pool.submit(rest.post, "/pipeline", [["EVAL", SLOW, 0], ["GET", "k"]])  # on one connection
            wait_until("others are served", lambda: rest.post("/", ["GET", "k"]).body == {"result": None}, 30)
            assert slow_one.result(30).body == [{"result": "done"}, {"result": None}]


class Relay:
    """A TCP relay to a server that can go silent: connections stay open, and no byte passes.

    Its ``version`` takes the place of the server's in what passes.
    """

    def __init__(self, target: str, version: bytes = b"") -> None:
        self._version = version
        self._target, self._listener = target, socket.create_server(("127.0.0.1", 0))
        self._silent: set[socket.socket] = set()
        self.links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://localhost:{self._listener.getsockname()[1]}"

    def silence(self) -> None:
        self._silent |= set(self.links)

    def close(self) -> None:
        self._listener.close()
        for link in self.links:
            link.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self.links += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._silent:
                    sink.sendall(re.sub(rb"(?<=redis_version:)[\d.]+", self._version, data) if self._version else data)
            sink.shutdown(socket.SHUT_WR)


DURABLE = ["--appendonly", "yes", "--appendfsync", "always"]


def test_a_silent_connection_is_closed(tmp_path: Path) -> None:
    with own_server(tmp_path / "own", *DURABLE) as url, contextlib.closing(Relay(url.removeprefix("unix://"))) as relay:
        with standalone_store(tmp_path / "data", OVERLOAD_REDIS_URL=relay.url) as rest:
            rest.run("SET", "k", "v")
            relay.silence()
            reply = rest.post("/", ["GET", "k"])
            assert (reply.status, "unknown" in str(reply.body)) in {(503, True), (200, False)}
            wait_until("it is served", lambda: rest.post("/", ["GET", "k"]).body == {"result": "v"}, 30)


class CuttingRelay(Relay):
    """Answers SUBSCRIBE itself: by a reset, or by bytes that are no reply."""

    def __init__(self, target: str, garbage: bytes) -> None:
        self._garbage = garbage
        super().__init__(target)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if b"SUBSCRIBE" not in data:
                    sink.sendall(data)
                elif self._garbage:
                    source.sendall(self._garbage)
                else:
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    source.close()


@pytest.mark.parametrize("garbage", [b"", b"@@@\r\n"], ids=["reset", "garbage"])
def test_events_end_in_order_with_the_connection_they_come_from(tmp_path: Path, garbage: bytes) -> None:
    with (
        own_server(tmp_path / "own") as url,
        contextlib.closing(CuttingRelay(url.removeprefix("unix://"), garbage)) as relay,
        standalone_store(tmp_path / "data", OVERLOAD_REDIS_URL=relay.url) as rest,
    ):
        reply = rest.send_for_bytes("GET", "/subscribe/chat", headers={"Accept": "text/event-stream"})
        assert (reply.status, reply.body) == (200, b"")


def test_a_lost_server_is_found_again_after_an_unexpected_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(ExternalServer):
        connections = 0

        async def connect(self) -> RedisConnection:
            self.connections += 1
            if self.connections == 2:
                raise ValueError("40 is not a valid Signals")
            return await super().connect()

    async def scenario(url: str) -> None:
        upstream = Upstream(Faulty(url))
        await upstream.open()
        assert upstream.live is not None
        upstream.live.close()
        await wait_until_async("it is connected again", lambda: asyncio.sleep(0, upstream.live))
        await upstream.aclose()

    with own_server(tmp_path / "own", *DURABLE) as url:
        asyncio.run(scenario(url))
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "unexpected error" in record.getMessage()


def test_a_server_that_is_too_old_is_refused_in_one_line_that_names_it(tmp_path: Path) -> None:
    with own_server(tmp_path / "own") as url, contextlib.closing(Relay(url.removeprefix("unix://"), b"6.0.9")) as relay:
        with pytest.raises(ConfigurationError, match=r"at localhost:\d+ is version 6\.0, but at least 6\.2 is needed$"):
            EmbeddedStore(tmp_path / "data", load_settings(overload_redis_url=relay.url)).acquire()


def test_a_demoted_primary_is_not_used_until_it_takes_writes_again(tmp_path: Path) -> None:
    with (
        own_server(tmp_path / "own", *DURABLE) as url,
        standalone_store(tmp_path / "data", OVERLOAD_REDIS_URL=url) as rest,
    ):
        rest.run("SET", "k", "v")
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(url.removeprefix("unix://"))
            admin.sendall(b"REPLICAOF 127.0.0.1 1\r\n")
            assert admin.recv(100) == b"+OK\r\n"
            wait_until("the change is reported", lambda: rest.post("/", ["PING"]).status == 503)
            reply = rest.post("/", ["SET", "k", "w"])
            assert (reply.status, "nothing was done" in reply.body["error"]) == (503, True)
            admin.sendall(b"REPLICAOF NO ONE\r\n")
            assert admin.recv(100) == b"+OK\r\n"
            wait_until("writes are taken again", lambda: rest.post("/", ["SET", "k", "w"]).status == 200)


def test_a_blocked_connection_is_closed_within_seconds(tmp_path: Path) -> None:
    """The command list refuses such commands; this covers one that it does not know."""

    async def scenario(url: str) -> None:
        upstream = Upstream(ExternalServer(url))
        await upstream.open()
        connection = upstream.live
        assert connection is not None
        blocked, behind = connection.send(pack(["BLPOP", "q", "0"]), 1), connection.send(pack(["PING"]), 1)
        for future in (blocked, behind):
            with pytest.raises(StoreUnavailableError, match="connection to the server was lost") as lost:
                await asyncio.wait_for(future, 30)
            assert lost.value.outcome is Outcome.UNKNOWN
        assert await (await upstream.wait_for_connection()).ask("PING") == "PONG"
        await upstream.aclose()

    with own_server(tmp_path, *DURABLE) as url:
        asyncio.run(scenario(url))
