"""One pipelined connection to Redis: many requests under way, replies matched in the order of sending.

All requests of the gateway share one connection. That is what makes it fast: commands that gather while the server
works are read by it together and put on disk by one fsync.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from overload_demo.errors import Outcome, StoreUnavailableError

ReplyError = hiredis.ReplyError

_INCOMPLETE = object()
_pack_command = cast(Callable[[tuple[str, ...]], bytes], hiredis.pack_command)  # its stub knows tuples of one


class RedisConnectionLostError(StoreUnavailableError):
    """The connection ended before the replies came: whether the commands ran is unknown."""

    def __init__(self, message: str = "the connection to the server was lost") -> None:
        super().__init__(message, Outcome.UNKNOWN)


def pack(arguments: list[str]) -> bytes:
    """One command in wire form. A lone surrogate, which has no bytes, becomes U+FFFD."""
    try:
        return _pack_command(tuple(arguments))
    except UnicodeEncodeError:
        # UTF-16 can hold a lone surrogate, and its decoder puts U+FFFD in its place.
        return _pack_command(tuple(a.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for a in arguments))


class _Call:
    """A request under way: how many replies it still expects, and who waits for them."""

    __slots__ = ("as_bytes", "expected", "future", "replies")

    def __init__(self, expected: int, as_bytes: bool, future: asyncio.Future[list[Any]]) -> None:
        self.expected, self.as_bytes, self.future = expected, as_bytes, future
        self.replies: list[Any] = []


class RedisConnection(asyncio.Protocol):
    """A connection to one server; ``closed`` is done once it has ended, for whatever reason."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace", notEnoughData=_INCOMPLETE)
        self._calls: deque[_Call] = deque()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request can still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, packed: bytes, expected: int, *, as_bytes: bool = False) -> asyncio.Future[list[Any]]:
        """Send packed commands in one piece; the future holds their ``expected`` replies, in order.

        Nothing of another request comes between them. An error reply is a :class:`ReplyError` in its place; strings are
        ``str`` (U+FFFD where they are not UTF-8), or ``bytes`` with ``as_bytes``. The future fails with
        :class:`RedisConnectionLostError`. Raises :class:`StoreUnavailableError` when nothing was sent.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise StoreUnavailableError("there is no connection to the server")
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(expected, as_bytes, future))
        transport.write(packed)
        return future

    async def ask(self, *arguments: str) -> Any:
        """Run one command and return its reply; raises :class:`ReplyError` when that is an error."""
        (reply,) = await self.send(pack(list(arguments)), 1)
        if isinstance(reply, ReplyError):
            raise reply
        return reply

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
                reply = self._reader.gets(not call.as_bytes)
                if reply is _INCOMPLETE:
                    return
                call.replies.append(reply)
                if len(call.replies) == call.expected:
                    self._calls.popleft()
                    if not call.future.done():  # its waiter may have been cancelled meanwhile
                        call.future.set_result(call.replies)
            if self._reader.has_data():  # a reply nobody asked for: the order can no longer be trusted
                self.close()
        except hiredis.ProtocolError:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop: whoever still waits learns that the outcome is unknown."""
        for call in self._calls:
            if not call.future.done():
                call.future.set_exception(RedisConnectionLostError())
        self._calls.clear()
        if not self.closed.done():
            self.closed.set_result(None)
