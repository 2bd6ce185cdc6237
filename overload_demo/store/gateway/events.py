"""Server-sent events: forward what SUBSCRIBE, PSUBSCRIBE and MONITOR receive until one side closes.

Each listener has its own connection to the server, since such a command takes the whole of one.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from overload_demo.store.gateway.commands import RefusedError
from overload_demo.store.gateway.request_body import path_arguments
from overload_demo.store.gateway.resp import INCOMPLETE, ReplyError, pack, text_reader
from overload_demo.store.gateway.upstream import Upstream

COMMANDS = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "MONITOR"})
MAX_LISTENERS = 100  # each takes two descriptors of the gateway and one of the server
CHUNK_BYTES = 65_536

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def event_command(headers: dict[bytes, bytes], path: bytes) -> list[Any]:
    """The command of a request for events, its name in capitals; empty for any other request."""
    if b"text/event-stream" not in headers.get(b"accept", b""):
        return []
    name, *channels = path_arguments(path)
    return [name.upper(), *channels] if name.upper() in COMMANDS else []


class Events:
    """Serves listeners until :meth:`end`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream, self._room = upstream, asyncio.Semaphore(MAX_LISTENERS)
        self._listeners: set[asyncio.Transport] = set()

    async def serve(
        self, arguments: list[Any], headers: list[tuple[bytes, bytes]], receive: Receive, send: Send
    ) -> None:
        """Answer one request with events.

        Raises :class:`RefusedError` or :class:`~overload_demo.errors.StoreUnavailableError` before anything is sent.
        """
        if self._room.locked():
            raise RefusedError("ERR max number of clients reached")
        async with self._room:
            reader, transport = (await self._upstream.another()).as_stream()
            self._listeners.add(transport)
            departure = asyncio.create_task(_departure(receive))
            departure.add_done_callback(lambda _: transport.abort())  # which ends the replies
            try:
                transport.write(pack(arguments))
                await _forward(_replies(reader), headers, send)
            finally:
                departure.cancel()
                transport.abort()
                self._listeners.discard(transport)

    def end(self) -> None:
        """End all listeners' responses."""
        for transport in self._listeners:
            transport.abort()


async def _forward(replies: AsyncIterator[Any], headers: list[tuple[bytes, bytes]], send: Send) -> None:
    """Send an event for each reply; an error as the first reply becomes the response."""
    first = await anext(replies, None)
    if isinstance(first, ReplyError):
        raise RefusedError(str(first))
    stream = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": stream})
    if first is not None:
        await send({"type": "http.response.body", "body": _event(first), "more_body": True})
    async for reply in replies:
        await send({"type": "http.response.body", "body": _event(reply), "more_body": True})
    await send({"type": "http.response.body"})


def _event(reply: Any) -> bytes:
    """One event: ``message,channel,text`` of pub/sub, or MONITOR's line; a line break begins another ``data:``."""
    text = ",".join(map(str, reply)) if isinstance(reply, list) else '"OK"' if reply == "OK" else str(reply)
    lines = re.split("\r\n|\r|\n", text)
    return "".join([*(f"data: {line}\n" for line in lines), "\n"]).encode()


async def _replies(reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    """The server's replies, until the connection ends."""
    parser = text_reader()
    while data := await reader.read(CHUNK_BYTES):
        parser.feed(data)
        while (reply := parser.gets()) is not INCOMPLETE:
            yield reply


async def _departure(receive: Receive) -> None:
    """Return once the client has closed its connection; the body of its request is ignored."""
    while (await receive())["type"] != "http.disconnect":
        pass
