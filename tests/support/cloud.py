"""Remote stores: a simulated cloud database with a lagging replica, and a real database."""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.lab.simulated_cloud import Line, Proxy, SimulatedCloud, header_of
from overload_demo.rest import Address
from overload_demo.store.connect import Store
from overload_demo.store.gateway.commands import READS
from overload_demo.store.redis_server import find_server
from tests.support.running import free_port
from tests.support.stores import standalone_store, token_file
from tests.support.waiting import wait_until

LAG_S = 0.02
# https://upstash.com/docs/redis/troubleshooting/max_requests_limit; status 400 by a user's report.
QUOTA = (
    "ERR max requests limit exceeded. Limit: 500000, Usage: {used}. "
    "See https://upstash.com/docs/redis/troubleshooting/max_requests_limit for details"
)
UPGRADE = "READONLY Writes are temporarily rejected due to server upgrade"  # two third-party clients handle it
TOO_LARGE = "ERR max request size exceeded. Limit: {limit}, Actual: {actual}"  # for a reply: with status 200 (measured)
FREE_COMMANDS = 500_000
POLL_INTERVAL_S = 0.005
Refusal = tuple[int, bytes]


class CloudDatabase(SimulatedCloud):
    """A simulated cloud with the other behaviour of the vendor, from its documentation and from users' measurements.

    It refuses commands once the month's quota is used up, and writes during a server upgrade. A reply that is too large
    becomes an error with status 200. A lagging replica answers reads, unless the request carries the sync token of a
    later write. A command is a write by the gateway's own list; a script is a write.
    """

    def __init__(self, store: Address, replica: Address | None = None) -> None:
        super().__init__(store, *([replica] if replica else []))
        self.max_reply_bytes = 10_485_760  # of one command
        self.quota_is_used_up = self.is_upgrading = False
        self.refused = 0
        self.stale_reads = 0  # answered by a replica that lacked a write
        self.largest_reply = 0  # bytes

    async def answer(self, head: bytes, body: bytes, lines: list[Line]) -> bytes:
        """Return the response to a request."""
        commands, is_pipeline = _commands(head, body)
        is_write = any(str(command[0]).upper() not in READS for command in commands)
        if refusal := self._refusal(is_write, len(commands), is_pipeline):
            self.refused += 1
            return _http(*refusal)
        await self.wait_for_turn()
        primary, replica = lines[0], lines[-1]
        if is_write or replica is primary:
            answer = await primary.exchange(head, body)
        else:
            await self._catch_up(header_of(head, b"upstash-sync-token"), primary, replica)
            answer = await replica.exchange(head, body)
        status, content = int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]
        own_token = header_of(answer, b"upstash-sync-token")
        token = own_token if replica is primary else await _offset(primary, "master")
        return _http(status, self._limited(content), token)

    def _refusal(self, is_write: bool, count: int, is_pipeline: bool) -> Refusal | None:
        """Return the error that the cloud answers without running anything."""
        if self.quota_is_used_up:  # the number rises with every attempt, as in the original
            return 400, _error(QUOTA.format(used=FREE_COMMANDS + self.refused))
        if self.is_upgrading and is_write:
            return (200, b"[%b]" % b",".join([_error(UPGRADE)] * count)) if is_pipeline else (400, _error(UPGRADE))
        return None

    async def _catch_up(self, token: bytes, primary: Line, replica: Line) -> None:
        """Wait until the replica has the write whose token the request carries."""
        while token and int(await _offset(replica, "slave")) < int(token):
            await asyncio.sleep(POLL_INTERVAL_S)
        if int(await _offset(replica, "slave")) < int(await _offset(primary, "master")):
            self.stale_reads += 1

    def _limited(self, content: bytes) -> bytes:
        self.largest_reply = max(self.largest_reply, len(content))
        if len(content) <= self.max_reply_bytes:
            return content
        value = json.loads(content)
        if isinstance(value, list):
            return b"[%b]" % b",".join(map(self._limited_item, value))
        return self._limited_item(value)

    def _limited_item(self, item: Any) -> bytes:
        text = json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= self.max_reply_bytes:
            return text
        return _error(TOO_LARGE.format(limit=self.max_reply_bytes, actual=len(text)))


def _commands(head: bytes, body: bytes) -> tuple[list[Any], bool]:
    """Return the commands of a request, none for an unusable body, and whether they are a pipeline."""
    is_pipeline = head.split(b" ", 2)[1] == b"/pipeline"
    with contextlib.suppress(ValueError, IndexError, TypeError):
        value = json.loads(body)
        commands = value if is_pipeline else [value]
        if all(command[0] for command in commands):
            return commands, is_pipeline
    return [], is_pipeline


async def _offset(line: Line, role: str) -> bytes:
    """Return how much of the primary's log a server has, bytes."""
    facts = dict(one.partition(":")[::2] for one in (await line.ask("INFO", "replication")).splitlines())
    return str(facts[f"{role}_repl_offset"]).encode()


def _error(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


def _http(status: int, content: bytes, token: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (status, len(content))
    return head + (b"Upstash-Sync-Token: %b\r\n" % token if token else b"") + b"\r\n" + content


class Relay(Proxy):
    """Carries bytes between a replica and its primary; those of the primary arrive ``lag_s`` later."""

    def __init__(self, primary_port: int) -> None:
        super().__init__()
        self.lag_s = LAG_S
        self._primary_port = primary_port

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One replica's connection."""
        down, up = await asyncio.open_connection("127.0.0.1", self._primary_port)
        with contextlib.closing(up):
            async with asyncio.TaskGroup() as group:
                late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
                group.create_task(_carry(reader, up))
                group.create_task(self._hold_back(down, late))
                group.create_task(_hand_over(late, writer))

    async def _hold_back(self, reader: asyncio.StreamReader, late: "asyncio.Queue[tuple[float, bytes]]") -> None:
        while data := await reader.read(65_536):
            late.put_nowait((asyncio.get_running_loop().time() + self.lag_s, data))
        raise ConnectionResetError


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


async def _hand_over(late: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
    while True:
        due_at, data = await late.get()
        await asyncio.sleep(due_at - asyncio.get_running_loop().time())
        writer.write(data)
        await writer.drain()


@contextlib.contextmanager
def server(folder: Path, port: int, *options: str) -> Iterator[None]:
    """A server on a port, without a disk."""
    try:
        binary = find_server(None)
    except ConfigurationError as error:
        pytest.skip(str(error))
    folder.mkdir()
    command = [binary, "--port", str(port), "--dir", folder, "--save", "", "--repl-diskless-sync-delay", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until("the server listens", lambda: listens(port))
        yield
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    """Whether a server listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def lagging_cloud(folder: Path) -> Iterator[tuple[CloudDatabase, Relay]]:
    """A cloud whose reads come from a replica that receives a write ``relay.lag_s`` later."""
    folder.mkdir(exist_ok=True)
    ports = free_port(), free_port()
    chosen = "--token-file", str(token_file(folder / "token", secrets.token_hex(16)))
    with contextlib.ExitStack() as stack:
        stack.enter_context(server(folder / "primary", ports[0]))
        relay = stack.enter_context(Relay(ports[0]).serving())
        # Writable, since a gateway refuses a replica that is not; the cloud sends it reads only.
        follow = ["--replicaof", "127.0.0.1", str(relay.port), "--replica-read-only", "no"]
        stack.enter_context(server(folder / "replica", ports[1], *follow))
        both = [
            stack.enter_context(
                standalone_store(folder / f"gateway-{port}", *chosen, OVERLOAD_REDIS_URL=f"redis://127.0.0.1:{port}")
            )
            for port in ports
        ]
        wait_until("the replica follows", lambda: "master_link_status:up" in both[1].run("INFO", "replication"))
        addresses = [Address(one.url, SecretStr(one.token)) for one in both]
        yield stack.enter_context(CloudDatabase(*addresses).serving()), relay


def store_of(cloud: CloudDatabase) -> Store:
    """The cloud as a store to be opened."""
    return cloud.address, None


def real_database() -> Store:
    """The database of UPSTASH_REDIS_REST_URL and _TOKEN; skips where there is none."""
    if "UPSTASH_REDIS_REST_URL" not in os.environ:
        pytest.skip("UPSTASH_REDIS_REST_URL is not set")
    settings = load_settings()
    assert settings.upstash_redis_rest_url
    assert settings.upstash_redis_rest_token
    return Address(settings.upstash_redis_rest_url, settings.upstash_redis_rest_token), None
