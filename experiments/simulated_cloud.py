"""What a cloud database adds to a store on this machine, by its vendor's documentation and by measurements of others.

A reverse proxy with real sockets in front of a gateway. It adds a round trip, makes commands wait above a rate, and
refuses them once the month's quota is used up or during a server upgrade. It turns a reply that is too large into an
error with status 200. A lagging replica answers reads, unless the request carries the sync token of a later write. The
gateway is real, and so is the replica. A command is a write by the gateway's own list; a script is a write.
"""

import asyncio
import contextlib
import json
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, Self
from urllib.parse import urlsplit

from overload_demo.lab.sampler import count_commands
from overload_demo.rest.address import Address
from overload_demo.rest.loopback import connect
from overload_demo.store.gateway.commands import READS

# https://upstash.com/docs/redis/troubleshooting/max_requests_limit; status 400 by a user's report.
QUOTA = (
    "ERR max requests limit exceeded. Limit: 500000, Usage: {used}. "
    "See https://upstash.com/docs/redis/troubleshooting/max_requests_limit for details"
)
UPGRADE = "READONLY Writes are temporarily rejected due to server upgrade"  # two third-party clients handle it
TOO_LARGE = "ERR max request size exceeded. Limit: {limit}, Actual: {actual}"  # for a reply: with status 200 (measured)
COMMANDS_PER_S = 10_000  # every plan's limit; above, a request waits (https://upstash.com/docs/redis/help/faq)
FREE_COMMANDS = 500_000
METER_EVERY_S = 0.02
POLL_INTERVAL_S = 0.005

START_WITHIN_S = STOP_WITHIN_S = 10.0

Refusal = tuple[int, bytes]


class Proxy(ABC):
    """A server on loopback, in a thread of its own, on ``port`` while it serves."""

    def __init__(self) -> None:
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @abstractmethod
    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it or its peer ends; a broken connection is an end too."""

    async def beside(self) -> None:  # noqa: B027 - most proxies have nothing to do there
        """Run beside all connections, and end with them."""

    @contextlib.contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve for the length of the block."""
        is_open, loop, may_end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
        thread = threading.Thread(target=loop.run_until_complete, args=(self._run(is_open, may_end),), name="proxy")
        thread.start()
        try:
            if not is_open.wait(START_WITHIN_S):
                raise TimeoutError(f"the proxy does not start within {START_WITHIN_S:g} s")
            yield self
        finally:
            loop.call_soon_threadsafe(may_end.set)
            thread.join(STOP_WITHIN_S)
            loop.close()

    async def _run(self, is_open: threading.Event, may_end: asyncio.Event) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._tasks.add(asyncio.create_task(self.beside()))
        is_open.set()
        await may_end.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ExceptionGroup):
            await self.handle(reader, writer)
        writer.close()
        self._tasks.discard(task)


class SimulatedCloud(Proxy):
    """Serves at ``address`` what the store behind it serves, under conditions that can be set at any time."""

    def __init__(self, store: Address, replica: Address | None = None) -> None:
        super().__init__()
        self.round_trip_s = 0.0
        self.commands_per_s = math.inf  # those inside scripts count; further ones wait
        self.max_reply_bytes = 10_485_760  # of one command
        self.quota_is_used_up = self.is_upgrading = False
        self.exchanges = self.refused = 0
        self.stale_reads = 0  # answered by a replica that lacked a write
        self.largest_reply = 0  # bytes
        self.waited = 0  # requests that waited for the rate limit
        self._store, self._replica = store, replica
        self._free_at = 0.0

    @property
    def address(self) -> Address:
        """Where it is reached."""
        return replace(self._store, url=f"http://127.0.0.1:{self.port}", durability="unknown")

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that make a process use it."""
        token = self.address.token.get_secret_value()
        return {"UPSTASH_REDIS_REST_URL": self.address.url, "UPSTASH_REDIS_REST_TOKEN": token}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve requests one after the other, each a round trip long."""
        with closing(_Line(self._store)) as primary, closing(_Line(self._replica or self._store)) as replica:
            while True:
                head, body = await read_message(reader)
                await asyncio.sleep(self.round_trip_s / 2)
                answer = await self._answer(head, body, primary, replica)
                await asyncio.sleep(self.round_trip_s / 2)
                writer.write(answer)
                await writer.drain()

    async def _answer(self, head: bytes, body: bytes, primary: "_Line", replica: "_Line") -> bytes:
        self.exchanges += 1
        commands, is_pipeline = _commands(head, body)
        is_write = any(str(command[0]).upper() not in READS for command in commands)
        if refusal := self._refusal(is_write, len(commands), is_pipeline):
            self.refused += 1
            return _http(*refusal)
        if (wait_s := self._free_at - asyncio.get_running_loop().time()) > 0:
            self.waited += 1
            await asyncio.sleep(wait_s)
        if is_write or self._replica is None:
            answer = await primary.exchange(head, body)
        else:
            await self._catch_up(_header(head, b"upstash-sync-token"), primary, replica)
            answer = await replica.exchange(head, body)
        status, content = _status(answer), answer.partition(b"\r\n\r\n")[2]
        token = await primary.offset("master") if self._replica else _header(answer, b"upstash-sync-token")
        return _http(status, self._limited(content), token)

    def _refusal(self, is_write: bool, count: int, is_pipeline: bool) -> Refusal | None:
        """Return the error that the cloud answers without running anything."""
        if self.quota_is_used_up:  # the number rises with every attempt, as in the original
            return 400, _error(QUOTA.format(used=FREE_COMMANDS + self.refused))
        if self.is_upgrading and is_write:
            return (200, b"[%b]" % b",".join([_error(UPGRADE)] * count)) if is_pipeline else (400, _error(UPGRADE))
        return None

    async def _catch_up(self, token: bytes, primary: "_Line", replica: "_Line") -> None:
        """Wait until the replica has the write whose token the request carries."""
        while token and int(await replica.offset("slave")) < int(token):  # noqa: ASYNC110 - a server sends no event
            await asyncio.sleep(POLL_INTERVAL_S)
        if int(await replica.offset("slave")) < int(await primary.offset("master")):
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

    async def beside(self) -> None:
        """Count the commands that the store runs, those inside scripts too, and delay later requests."""
        before = 0
        with closing(_Line(self._store)) as line:
            while True:
                if self.commands_per_s < math.inf:
                    _, run = count_commands(await line.ask("INFO", "commandstats"))
                    now = asyncio.get_running_loop().time()
                    fresh, before = run - (before or run), run
                    self._free_at = max(now, self._free_at) + fresh / self.commands_per_s
                await asyncio.sleep(METER_EVERY_S)


class _Line:
    """One connection to a gateway, opened on first use."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, head: bytes, body: bytes) -> bytes:
        """Return the gateway's unchanged response to a request."""
        if self._streams is None:
            self._streams = await open_line(self._address)
        reader, writer = self._streams
        writer.write(head + body)
        return b"".join(await read_message(reader))

    async def ask(self, *command: str) -> Any:
        """Return the reply to a command."""
        body = json.dumps(command).encode()
        head = f"POST / HTTP/1.1\r\nAuthorization: Bearer {self._address.token.get_secret_value()}\r\n"
        answer = await self.exchange(f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body)
        return json.loads(answer.partition(b"\r\n\r\n")[2])["result"]

    async def offset(self, role: str) -> bytes:
        """Return how much of the primary's log the server has, bytes."""
        facts = dict(line.partition(":")[::2] for line in (await self.ask("INFO", "replication")).splitlines())
        return str(facts[f"{role}_repl_offset"]).encode()

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()


async def open_line(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a gateway on this machine."""
    if address.socket:
        return await asyncio.open_connection(sock=connect(address.socket))
    parts = urlsplit(address.url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read the head of an HTTP message, including the empty line, and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    return head, await reader.readexactly(int(_header(head, b"content-length") or 0))


def _header(head: bytes, name: bytes) -> bytes:
    """Return the value of a header; empty if it is missing."""
    for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        if line.lower().startswith(name + b":"):
            return line.partition(b":")[2].strip()
    return b""


def _commands(head: bytes, body: bytes) -> tuple[list[Any], bool]:
    """Return the commands of a request, none for an unusable body, and whether they are a pipeline."""
    is_pipeline = head.split(b" ", 2)[1] == b"/pipeline"
    with contextlib.suppress(ValueError, IndexError, TypeError):
        value = json.loads(body)
        commands = value if is_pipeline else [value]
        if all(command[0] for command in commands):
            return commands, is_pipeline
    return [], is_pipeline


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def _error(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


def _http(status: int, content: bytes, token: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (status, len(content))
    return head + (b"Upstash-Sync-Token: %b\r\n" % token if token else b"") + b"\r\n" + content
