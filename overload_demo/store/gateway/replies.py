"""Turn the server's replies into responses: JSON, JSON with base64, RESP2, or server-sent events.

Replies arrive unparsed: base64 distinguishes the status ``OK`` from a stored one, and RESP2 is passed on. Events are
what SUBSCRIBE, PSUBSCRIBE and MONITOR receive until one side closes; such a command takes the whole of a connection to
the server.
"""

import asyncio
import binascii
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from hiredis import ProtocolError

from overload_demo.store.gateway.commands import MAX_COMMAND_BYTES, NOT_AVAILABLE, RedisCommand, RefusedError, too_large
from overload_demo.store.gateway.resp import INCOMPLETE, ReplyError, error_in, pack, parsed, text_reader
from overload_demo.store.gateway.upstream import Upstream

MAX_LISTENERS = 100  # each takes two descriptors of the gateway and one of the server
CHUNK_BYTES = 65_536

Message = dict[str, Any]
Headers = list[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True)
class ReplyFormat:
    """A format of responses. In JSON strings are text, or base64 at any depth, so that any bytes fit."""

    content_type: bytes
    is_json: bool
    is_base64: bool = False

    def item(self, reply: bytes, command: RedisCommand) -> bytes:
        """Encode the reply to a command, or its error, in Upstash's words where these differ."""
        if (error := error_in(reply)) is not None:
            is_unknown = error.startswith("ERR unknown command")
            return self.error(NOT_AVAILABLE.format(command.name) if is_unknown else error)
        if command.answer:
            reply = b"$%d\r\n%b\r\n" % (len(command.answer), command.answer.encode())
        try:
            if not self.is_json:
                encoded = reply
            elif self.is_base64 and reply == b"+OK\r\n":  # only this status stays as it is
                encoded = b'"OK"'
            else:
                encoded = _to_json(parsed(reply, as_text=not self.is_base64)).encode()
        except RecursionError:
            return self.error("ERR the reply is nested too deeply for JSON")
        if len(encoded) > MAX_COMMAND_BYTES:
            return self.error(too_large(len(encoded), MAX_COMMAND_BYTES))
        return b'{"result":%b}' % encoded if self.is_json else encoded

    def error(self, text: str) -> bytes:
        """Encode an error."""
        if self.is_json:
            return b'{"error":%b}' % _to_json(text).encode()
        return b"-%b\r\n" % " ".join(text.split()).encode()

    def together(self, items: list[bytes]) -> bytes:
        """Join the items of several commands."""
        return b"[%b]" % b",".join(items) if self.is_json else b"".join(items)


def _encode_other(value: object) -> str:
    """Encode bytes as base64, and an error inside a script's array as its text."""
    return binascii.b2a_base64(value, newline=False).decode() if isinstance(value, bytes) else str(value)


_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_encode_other).encode
JSON = ReplyFormat(b"application/json", is_json=True)
BASE64 = ReplyFormat(b"application/json", is_json=True, is_base64=True)
RESP2 = ReplyFormat(b"application/octet-stream", is_json=False)


def format_for(headers: dict[bytes, bytes], path: bytes) -> ReplyFormat:
    """The requested format; a transaction is never answered in RESP2. Raises :class:`RefusedError`."""
    wants_base64 = headers.get(b"upstash-encoding", b"").lower() == b"base64"
    name = headers.get(b"upstash-response-format", b"json").lower()
    if name not in {b"", b"json", b"resp2"}:
        raise RefusedError("ERR Upstash-Response-Format must be json or resp2")
    if name != b"resp2":
        return BASE64 if wants_base64 else JSON
    if wants_base64:
        raise RefusedError("ERR Upstash-Encoding base64 is not permitted with Upstash-Response-Format resp2")
    return JSON if path == b"multi-exec" else RESP2


class Events:
    """Serves listeners, each with a connection of its own, until :meth:`end`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream, self._room = upstream, asyncio.Semaphore(MAX_LISTENERS)
        self._listeners: set[asyncio.Transport] = set()
        upstream.on_leave = self.end  # a listener of a silent server would receive nothing

    async def serve(self, arguments: list[Any], headers: Headers, receive: Receive, send: Send) -> None:
        """Answer one request; raises :class:`RefusedError` or ``StoreUnavailableError`` before anything is sent."""
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


async def _forward(replies: AsyncIterator[Any], headers: Headers, send: Send) -> None:
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
    with contextlib.suppress(OSError, ProtocolError):  # a reset, or no reply: an end too
        while data := await reader.read(CHUNK_BYTES):
            parser.feed(data)
            while (reply := parser.gets()) is not INCOMPLETE:
                yield reply


async def _departure(receive: Receive) -> None:
    """Return once the client has closed its connection; the body of its request is ignored."""
    while (await receive())["type"] != "http.disconnect":
        pass
