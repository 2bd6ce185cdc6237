"""A simulated cloud database: a reverse proxy with real sockets in front of a gateway on this machine.

It adds a round trip to each exchange, and delays requests above a rate of commands, as Upstash does.
"""

import asyncio
import contextlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

from overload_demo.config import load_settings
from overload_demo.process import LoopThread
from overload_demo.rest import Address
from overload_demo.rest.loopback import connect
from overload_demo.store.connect import EmbeddedStore

COMMANDS_PER_S = 10_000  # every plan's limit; above, a request waits (https://upstash.com/docs/redis/help/faq)
METER_EVERY_S = 0.02
TIMEOUT_S = 10.0


class Proxy(ABC):
    """A server on loopback, in a separate thread, on ``port`` while it serves."""

    def __init__(self) -> None:
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @abstractmethod
    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it or its peer ends; a broken connection is an end too."""

    async def beside(self) -> None:  # noqa: B027 - most proxies run nothing there
        """Run beside all connections, and end with them."""

    @contextlib.contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve for the length of the block."""
        thread = LoopThread("proxy")
        try:
            server = thread.start(self._open()).result(TIMEOUT_S)
            yield self
            thread.start(self._close(server)).result(TIMEOUT_S)
        finally:
            thread.stop()

    async def _open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._tasks.add(asyncio.create_task(self.beside()))
        return server

    async def _close(self, server: asyncio.Server) -> None:
        await stop_accepting(server)
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


async def stop_accepting(server: asyncio.Server) -> None:
    """Close a server once the task of each accepted connection has begun; asyncio would leave the connection open."""
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener.fileno())
    for _ in range(5):  # the connection becomes a transport, a stream, a task
        await asyncio.sleep(0)
    server.close()


class SimulatedCloud(Proxy):
    """Serves at ``address`` what the store behind it serves, under conditions that can be set at any time."""

    def __init__(self, *stores: Address) -> None:
        super().__init__()
        self.round_trip_s = 0.0
        self.commands_per_s = math.inf  # those inside scripts count; further ones wait
        self.exchanges = 0
        self.commands = 0  # as sent: a script is one, a pipeline has several
        self.waited = 0  # requests that waited for the rate limit
        self._stores = stores
        self._free_at = 0.0

    @property
    def address(self) -> Address:
        """The address of the proxy."""
        return replace(self._stores[0], url=f"http://127.0.0.1:{self.port}", durability="unknown")

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that make a process use it."""
        token = self.address.token.get_secret_value()
        return {"UPSTASH_REDIS_REST_URL": self.address.url, "UPSTASH_REDIS_REST_TOKEN": token}

    async def counts(self) -> tuple[int, int, int]:
        """Return exchanges, commands as sent, and commands with those inside scripts; from any event loop."""
        with closing(Line(self._stores[0])) as line:
            _, run = count_commands(await line.ask("INFO", "commandstats"))
        return self.exchanges, self.commands, run

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve requests one after the other, each a round trip long."""
        with ExitStack() as stack:
            lines = [stack.enter_context(closing(Line(store))) for store in self._stores]
            while True:
                head, body = await read_message(reader)
                self.exchanges += 1
                self.commands += commands_in(head, body)
                await asyncio.sleep(self.round_trip_s / 2)
                if header_of(head, b"accept") == b"text/event-stream":
                    await self._pass_on_events(head + body, writer)
                answer = await self.answer(head, body, lines)
                await asyncio.sleep(self.round_trip_s / 2)
                writer.write(answer)
                await writer.drain()

    async def _pass_on_events(self, request: bytes, writer: asyncio.StreamWriter) -> NoReturn:
        """Pass on a subscription, each event half a round trip late, until one side ends it."""
        reader, behind = await open_line(self._stores[0])
        with closing(behind):
            behind.write(request)
            while data := await reader.read(65_536):
                await asyncio.sleep(self.round_trip_s / 2)
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError

    async def answer(self, head: bytes, body: bytes, lines: "list[Line]") -> bytes:
        """Return the response to a request; ``lines`` are this connection's lines to the stores."""
        await self.wait_for_turn()
        return await lines[0].exchange(head, body)

    async def wait_for_turn(self) -> None:
        """Wait while the rate of commands is above the limit."""
        if (wait_s := self._free_at - asyncio.get_running_loop().time()) > 0:
            self.waited += 1
            await asyncio.sleep(wait_s)

    async def beside(self) -> None:
        """Count the commands that the store runs, those inside scripts too, and delay later requests."""
        before = 0
        with closing(Line(self._stores[0])) as line:
            while True:
                if self.commands_per_s < math.inf:
                    _, run = count_commands(await line.ask("INFO", "commandstats"))
                    now = asyncio.get_running_loop().time()
                    fresh, before = run - (before or run), run
                    self._free_at = max(now, self._free_at) + fresh / self.commands_per_s
                await asyncio.sleep(METER_EVERY_S)


@contextlib.contextmanager
def far_store(data_dir: Path, round_trip_s: float) -> Iterator[SimulatedCloud]:
    """Run the embedded store of ``data_dir`` behind a simulated round trip for the length of the block. Blocks."""
    own = load_settings(upstash_redis_rest_url=None, upstash_redis_rest_token=None)
    with EmbeddedStore(data_dir.absolute(), own) as store, SimulatedCloud(store.acquire()).serving() as cloud:
        cloud.round_trip_s = round_trip_s
        yield cloud


class Line:
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
    return head, await reader.readexactly(int(header_of(head, b"content-length") or 0))


def commands_in(head: bytes, body: bytes) -> int:
    """Count the commands of a request as sent: a pipeline has several, anything else is one."""
    with contextlib.suppress(ValueError, TypeError):
        return len(json.loads(body)) if head.startswith(b"POST /pipeline") else 1
    return 1


def count_commands(commandstats: str) -> tuple[int, int]:
    """Count script calls, and all commands, in the text of ``INFO commandstats``; INFO is sent by observers only."""
    found = re.findall(r"^cmdstat_([^:]+):calls=(\d+)", commandstats, re.MULTILINE)
    run = {name: int(calls) for name, calls in found if name != "info"}
    return run.get("eval", 0) + run.get("evalsha", 0), sum(run.values())


def header_of(head: bytes, name: bytes) -> bytes:
    """Return the value of a header; empty if it is missing."""
    for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        if line.lower().startswith(name + b":"):
            return line.partition(b":")[2].strip()
    return b""
