"""A server whose answers a test defines: raw bytes, half an answer, none, a reset, a stall."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from overload_demo.lab.simulated_cloud import stop_accepting
from overload_demo.rest import Address
from overload_demo.rest.client import Upstash

TOKEN = "the-secret-token"
HOST = "127.0.0.1"
# Clients treat a store there as remote: they use httpx's transport, as for Upstash.
ELSEWHERE = "127.0.0.2"


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: Any


Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Hostile:
    """The address of the server and the requests it received."""

    address: Address
    requests: list[Request] = field(default_factory=list)


def raw(data: bytes) -> Script:
    """These bytes, then the end of the connection."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return script


def answer(status: int, body: object, **headers: str) -> Script:
    """A well-formed HTTP answer; ``body`` is sent as it is when it is bytes, else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def script(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
        await writer.drain()

    return script


async def stay_silent(_: asyncio.StreamWriter) -> None:
    """Read the request and never answer."""
    await asyncio.sleep(3600)  # a timer is referenced by the loop; an event that nothing refers to is collected


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Read the request, then close the connection without a response."""
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    """Read the request, then reset the connection."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def endless(writer: asyncio.StreamWriter) -> None:
    """An answer in chunks without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        await writer.drain()


@contextlib.asynccontextmanager
async def hostile(*scripts: Script, before_reading: Script | None = None) -> AsyncIterator[Hostile]:
    """Serve on loopback: the n-th request is answered by the n-th script, all later ones by the last.

    ``before_reading`` is done to each new connection instead, before anything is read from it.
    """
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if before_reading:
                    return await before_reading(writer)
                while not writer.is_closing():
                    seen.requests.append(await _read(reader))
                    await scripts[min(len(seen.requests), len(scripts)) - 1](writer)
            writer.close()
        except asyncio.CancelledError:  # the test is over: unread output is dropped
            writer.transport.abort()
        return None

    server = await asyncio.start_server(serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    seen = Hostile(Address(f"http://{HOST}:{port}", SecretStr(TOKEN)))
    try:
        yield seen
    finally:
        await stop_accepting(server)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn


@contextlib.asynccontextmanager
async def client_of(address: Address, **options: Any) -> AsyncIterator[Upstash]:
    """A client of the store at ``address``."""
    store = Upstash(address, **options)
    try:
        yield store
    finally:
        await store.aclose()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    return Request(first.split(" ")[1], headers, body)
