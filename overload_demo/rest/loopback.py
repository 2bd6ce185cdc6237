"""An httpx transport to a store on this machine: one C parser and plain sockets.

An exchange takes a fraction of the time of httpx's own transport (``experiments/bench/transport.py``), because it does
little: HTTP/1.1 without TLS or proxies, whole bodies, one write a request. A remote store is reached by httpx's own
transport; there the network takes the time.
"""

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httptools
import httpx

from overload_demo.errors import Outcome

PATH_BYTES = 100  # of a Unix socket; Linux allows 108, macOS 104
KEPT_FOR_S = 30.0  # older idle connections are not used: the server may be closing them


class ReplyTooLargeError(httpx.ReadError):
    """The reply is larger than allowed; its connection is closed."""


class Sending:
    """The outcome of a request that gets no reply: unknown once its first byte may have left.

    The callback of the "trace" extension of httpcore, which :class:`LoopbackTransport` calls too.
    """

    outcome = Outcome.NOT_ENQUEUED

    async def __call__(self, event: str, _: Mapping[str, Any]) -> None:
        """Note that the request begins to leave."""
        if event.endswith("send_request_headers.started"):
            self.outcome = Outcome.UNKNOWN


def connect(path: str, timeout_s: float = 2.0) -> socket.socket:
    """Connect to a Unix socket of a process of this user; nothing is sent to another user's. Raises OSError.

    SO_PEERCRED gives the listener's user. Without it, the socket's directory is the only protection: no other user can
    write there.
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
            credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if (user := struct.unpack("3i", credentials)[1]) != os.geteuid():
                raise PermissionError(f"{path} is served by user {user}, not by user {os.geteuid()}")
    except BaseException:
        link.close()
        raise
    return link


class LoopbackTransport(httpx.AsyncBaseTransport):
    """Plain HTTP/1.1 over at most ``connections`` kept connections; further requests wait for one.

    Connects to the Unix socket ``path`` of this user if it is given, otherwise to the URL's host. A reply has at most
    ``max_reply_bytes``, head included. Raises httpx's errors: ConnectError and ConnectTimeout if nothing was sent,
    ReadError and RemoteProtocolError if the request may have been carried out. Cancelling an exchange closes its
    connection.
    """

    def __init__(self, connections: int, max_reply_bytes: int, path: str = "") -> None:
        self._max_reply_bytes, self._path = max_reply_bytes, path
        self._room = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Run one exchange; the returned response is complete."""
        async with self._room:
            connection = self._kept() or await self._connect(request, _Connection)
            if trace := request.extensions.get("trace"):
                await trace("http11.send_request_headers.started", {})
            try:
                status, headers, body = await connection.exchange(_as_bytes(request))
            except BaseException:
                connection.abort()
                raise
            if connection.is_reusable:
                self._idle.append(connection)
            else:
                connection.abort()
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body), request=request)

    async def stream(self, request: httpx.Request) -> httpx.Response:
        """Return a response whose body arrives in parts, on a connection of its own; close it to end that."""
        connection = await self._connect(request, _StreamConnection)
        try:
            status, headers, _ = await connection.exchange(_as_bytes(request))
        except BaseException:
            connection.abort()
            raise
        return httpx.Response(status, headers=headers, stream=connection, request=request)

    async def aclose(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().abort()

    def _kept(self) -> "_Connection | None":
        """The most recently used connection that is still usable."""
        too_old = time.monotonic() - KEPT_FOR_S
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and connection.used_at > too_old:
                return connection
            connection.abort()
        return None

    async def _connect(self, request: httpx.Request, kind: "type[Kind]") -> "Kind":
        loop, url, timeout_s = asyncio.get_running_loop(), request.url, request.extensions["timeout"]["connect"]
        where: dict[str, Any] = {"host": url.host, "port": url.port or 80}
        try:
            async with asyncio.timeout(timeout_s):
                if self._path:
                    where = {"sock": connect(self._path, timeout_s)}  # blocks only for an instant: there is no network
                _, connection = await loop.create_connection(lambda: kind(self._max_reply_bytes), **where)
        except TimeoutError:
            raise httpx.ConnectTimeout("no connection in time") from None
        except OSError as error:
            raise httpx.ConnectError(str(error)) from None
        return connection


Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


class _Connection(asyncio.Protocol):
    """One connection, with one exchange at a time; also the parser's callbacks (``on_...``)."""

    def __init__(self, max_reply_bytes: int) -> None:
        self.used_at = time.monotonic()
        self._max_reply_bytes = max_reply_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._answer: asyncio.Future[Answer] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._received = 0  # bytes of the present reply

    @property
    def is_reusable(self) -> bool:
        """Whether both sides keep it open and no exchange is under way."""
        return not self._transport.is_closing() and (self._answer is None or self._answer.done())

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and return the reply to it."""
        self._answer, self._received = asyncio.get_running_loop().create_future(), 0
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._max_reply_bytes:
            self._fail(ReplyTooLargeError("the reply is too large"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError(str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(httpx.ReadError(str(error or "the connection was closed before the reply was complete")))

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.done():  # a reply without a request
            self.abort()
        self._headers, self._body = [], []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._answer is None or self._answer.done():  # below 200: another head follows
            return
        if not self._parser.should_keep_alive():
            self._transport.close()
        self.used_at = time.monotonic()
        self._answer.set_result((status, self._headers, b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        self.abort()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class _StreamConnection(_Connection, httpx.AsyncByteStream):
    """A connection for one reply, whose body is iterated while it arrives."""

    def __init__(self, max_reply_bytes: int) -> None:
        super().__init__(max_reply_bytes)
        self._parts = asyncio.StreamReader()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while part := await self._parts.read(65_536):
            yield part

    async def aclose(self) -> None:
        self.abort()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._answer is not None and not self._answer.done():
            self._answer.set_result((status, self._headers, b""))

    def on_body(self, part: bytes) -> None:
        self._parts.feed_data(part)

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.done():
            self._parts.feed_eof()

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        self._parts.set_exception(error)


Kind = TypeVar("Kind", bound=_Connection)


def _as_bytes(request: httpx.Request) -> bytes:
    head = b"".join(b"%b: %b\r\n" % header for header in request.headers.raw)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (request.method.encode(), request.url.raw_path, head, request.read())
