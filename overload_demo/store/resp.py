"""One pipelined connection to Redis: many requests under way, replies matched in the order of sending.

All requests of one kind share one connection. That is what makes it fast: commands that gather while the server
works are read by it together and put on disk by one fsync.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from overload_demo.errors import Outcome, StoreUnavailableError

ReplyError = hiredis.ReplyError

INCOMPLETE = object()
_BULK, _ARRAY = b"$*"
_pack_command = cast(Callable[[tuple[str | bytes, ...]], bytes], hiredis.pack_command)  # its stub: tuples of one


class RedisConnectionLostError(StoreUnavailableError):
    """The connection ended before the replies came: whether the commands ran is unknown."""

    def __init__(self, message: str = "the connection to the server was lost") -> None:
        super().__init__(message, Outcome.UNKNOWN)


def pack(arguments: Sequence[str | bytes]) -> bytes:
    """One command in wire form. A lone surrogate, which has no bytes, becomes U+FFFD."""
    try:
        return _pack_command(tuple(arguments))
    except UnicodeEncodeError:
        # UTF-16 can hold a lone surrogate, and its decoder puts U+FFFD in its place.
        return _pack_command(
            tuple(
                one if isinstance(one, bytes) else one.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                for one in arguments
            )
        )


class RawReader:
    """Cuts a stream into whole replies without parsing them; reads like :class:`hiredis.Reader`."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._at, self._parts_left = 0, 1  # how far the first reply is known, and what is still to come of it

    def feed(self, data: bytes) -> None:
        """More of the stream."""
        self._unread += data

    def gets(self, _should_decode: bool = False) -> Any:
        """The next reply, its bytes as they came; raises ValueError for what is none."""
        while self._parts_left:
            line_end = self._unread.find(b"\r\n", self._at)
            if line_end < 0:
                return INCOMPLETE
            kind, end = self._unread[self._at], line_end + 2
            if kind not in b"+-:$*":
                raise ValueError("not a reply")
            length = int(self._unread[self._at + 1 : line_end]) if kind in b"$*" else -1
            if kind == _BULK and length >= 0:
                end += length + 2
            if end > len(self._unread):
                return INCOMPLETE
            if kind == _ARRAY and length > 0:
                self._parts_left += length
            self._at, self._parts_left = end, self._parts_left - 1
        reply = bytes(self._unread[: self._at])
        del self._unread[: self._at]
        self._at, self._parts_left = 0, 1
        return reply

    def has_data(self) -> bool:
        """Whether something is left that belongs to no reply given out."""
        return bool(self._unread)


def elements_of(array: bytes) -> list[bytes]:
    """The elements of an unparsed array reply, unparsed."""
    head, _, rest = array.partition(b"\r\n")
    reader = RawReader()
    reader.feed(rest)
    return [reader.gets() for _ in range(int(head[1:]))]


def parsed(reply: bytes) -> Any:
    """An unparsed reply parsed, its strings as bytes."""
    reader = hiredis.Reader()
    reader.feed(reply)
    return reader.gets()


def reader_of_text() -> hiredis.Reader:
    """A parser whose strings are ``str``, with U+FFFD where they are not UTF-8."""
    return hiredis.Reader(encoding="utf-8", errors="replace", notEnoughData=INCOMPLETE)


class _Call:
    """A request under way: how many replies it still expects, and who waits for them."""

    __slots__ = ("expected", "future", "replies")

    def __init__(self, expected: int, future: asyncio.Future[list[Any]]) -> None:
        self.expected, self.future = expected, future
        self.replies: list[Any] = []


class RedisConnection(asyncio.Protocol):
    """A connection to one server; ``closed`` is done once it has ended, for whatever reason."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader: hiredis.Reader | RawReader = reader_of_text()
        self._calls: deque[_Call] = deque()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request can still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, packed: bytes, expected: int) -> asyncio.Future[list[Any]]:
        """Send packed commands in one piece; the future holds their ``expected`` replies, in order.

        Nothing of another request comes between them. An error reply is a :class:`ReplyError` in its place; strings are
        ``str`` (U+FFFD where they are not UTF-8). After :meth:`stop_parsing` all are ``bytes``. The future fails with
        :class:`RedisConnectionLostError`. Raises :class:`StoreUnavailableError` when nothing was sent.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise StoreUnavailableError("there is no connection to the server")
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(expected, future))
        transport.write(packed)
        return future

    async def ask(self, *arguments: str) -> Any:
        """Run one command and return its reply; raises :class:`ReplyError` when that is an error."""
        (reply,) = await self.send(pack(list(arguments)), 1)
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def stop_parsing(self) -> None:
        """From now on replies are ``bytes`` as the server sent them; call while no request is under way."""
        self._reader = RawReader()

    def as_stream(self) -> tuple[asyncio.StreamReader, asyncio.Transport]:
        """Hand over to somebody who reads on his own, with flow control; call while no request is under way."""
        reader, transport = asyncio.StreamReader(), cast(asyncio.Transport, self._transport)
        transport.set_protocol(asyncio.StreamReaderProtocol(reader))
        reader.set_transport(transport)
        return reader, transport

    def close(self) -> None:
        """End the connection; requests under way fail."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: hand each complete reply to the oldest request that waits for one."""
        try:
            self._reader.feed(data)
            while self._calls:
                call = self._calls[0]
                reply = self._reader.gets()
                if reply is INCOMPLETE:
                    return
                call.replies.append(reply)
                if len(call.replies) == call.expected:
                    self._calls.popleft()
                    if not call.future.done():  # its waiter may have been cancelled meanwhile
                        call.future.set_result(call.replies)
            if self._reader.has_data():  # a reply nobody asked for: the order can no longer be trusted
                self.close()
        except (hiredis.ProtocolError, ValueError):
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop: whoever still waits learns that the outcome is unknown."""
        for call in self._calls:
            if not call.future.done():
                call.future.set_exception(RedisConnectionLostError())
        self._calls.clear()
        if not self.closed.done():
            self.closed.set_result(None)
