"""How bytes travel to a store on this machine: httpx's transport hook, filled with one C parser and plain sockets.

An exchange takes a fraction of the time that httpx's own transport takes (``experiments/bench/transport.py``). It is
that cheap because it is that small: HTTP/1.1 without TLS or proxies, whole bodies, one write a request. A store
elsewhere is reached by httpx's own transport; there the network takes the time.
"""

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httptools
import httpx

PATH_BYTES = 100  # of a Unix socket, within the 108 of Linux and the 104 of macOS
KEPT_FOR_S = 30.0  # an idle connection is not used after that: the peer may be about to close it


class ReplyTooLargeError(httpx.ReadError):
    """The answer is larger than the transport's bound; the connection is gone."""


def connect(path: str, timeout_s: float = 2.0) -> socket.socket:
    """Connect to a Unix socket that a process of this user listens on; nothing has been sent to another's.

    Raises OSError. The kernel tells the listener's user where it has SO_PEERCRED; elsewhere the socket's directory, to
    which no other user can write, is all there is.
    """
    directory, name = os.path.split(path)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout_s)
        if len(os.fsencode(path)) < PATH_BYTES or not Path("/proc/self/fd").is_dir():
            link.connect(path)
        else:  # a longer path does not fit into the kernel's structure
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                link.connect(f"/proc/self/fd/{descriptor}/{name}")
            finally:
                os.close(descriptor)
        if hasattr(socket, "SO_PEERCRED"):
            told = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if (user := struct.unpack("3i", told)[1]) != os.geteuid():
                raise PermissionError(f"{path} is served by user {user}, not by user {os.geteuid()}")
    except BaseException:
        link.close()
        raise
    return link


class LoopbackTransport(httpx.AsyncBaseTransport):
    """Plain HTTP/1.1 over at most ``connections`` kept connections; a request beyond that waits for one.

    They lead to the URL's host or, where ``path`` names a Unix socket, there, if the listener runs as this user.
    An answer has at most ``max_reply_bytes``, its head included. Raises httpx's errors: ConnectError and ConnectTimeout
    when nothing was sent, ReadError and RemoteProtocolError when the request may have been carried out. A cancelled
    exchange takes its connection with it.
    """

    def __init__(self, connections: int, max_reply_bytes: int, path: str = "") -> None:
        self._max_reply_bytes, self._path = max_reply_bytes, path
        self._room = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange; the answer is complete when it is returned."""
        async with self._room:
            connection = self._kept() or await self._connect(request)
            try:
                status, headers, body = await connection.exchange(_as_bytes(request))
            except BaseException:
                connection.abort()
                raise
            if connection.is_reusable:
                self._idle.append(connection)
            else:
                connection.abort()
        return httpx.Response(status, headers=headers, stream=_Whole(body), request=request)

    async def aclose(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().abort()

    def _kept(self) -> "_Connection | None":
        """The connection that was used last, if it can be used again."""
        too_old = time.monotonic() - KEPT_FOR_S
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and connection.used_at > too_old:
                return connection
            connection.abort()
        return None

    async def _connect(self, request: httpx.Request) -> "_Connection":
        loop, url, timeout_s = asyncio.get_running_loop(), request.url, request.extensions["timeout"]["connect"]
        where: dict[str, Any] = {"host": url.host, "port": url.port or 80}
        try:
            async with asyncio.timeout(timeout_s):
                if self._path:
                    where = {"sock": connect(self._path, timeout_s)}  # at once: there is no network
                _, connection = await loop.create_connection(lambda: _Connection(self._max_reply_bytes), **where)
        except TimeoutError:
            raise httpx.ConnectTimeout("no connection in time") from None
        except OSError as error:
            raise httpx.ConnectError(str(error)) from None
        return connection


class _Whole(httpx.AsyncByteStream):
    """A body that is already there."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


class _Connection(asyncio.Protocol):
    """One connection; one exchange at a time."""

    def __init__(self, max_reply_bytes: int) -> None:
        self.used_at = time.monotonic()
        self._max_reply_bytes = max_reply_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._answer: asyncio.Future[Answer] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._received = 0  # bytes of the present answer

    @property
    def is_reusable(self) -> bool:
        """Whether both sides have kept it open, with nothing under way."""
        return not self._transport.is_closing() and (self._answer is None or self._answer.done())

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and return what was answered to it."""
        self._answer, self._received = asyncio.get_running_loop().create_future(), 0
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # ---- asyncio's hooks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Some bytes of an answer."""
        self._received += len(data)
        if self._received > self._max_reply_bytes:
            self._fail(ReplyTooLargeError("the answer is too large"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError(str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed."""
        self._fail(httpx.ReadError(str(error or "the connection was closed before the answer was complete")))

    # ---- the parser's hooks

    def on_message_begin(self) -> None:
        """An answer begins; one that nobody asked for ends the connection."""
        if self._answer is None or self._answer.done():
            self.abort()
        self._headers, self._body = [], []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers.append((name, value))

    def on_body(self, part: bytes) -> None:
        """Part of the body."""
        self._body.append(part)

    def on_message_complete(self) -> None:
        """The answer is whole; one with a status below 200 only announces another."""
        status = self._parser.get_status_code()
        if status < 200 or self._answer is None or self._answer.done():
            return
        if not self._parser.should_keep_alive():
            self._transport.close()
        self.used_at = time.monotonic()
        self._answer.set_result((status, self._headers, b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        self.abort()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _as_bytes(request: httpx.Request) -> bytes:
    head = b"".join(b"%b: %b\r\n" % header for header in request.headers.raw)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (request.method.encode(), request.url.raw_path, head, request.content)
