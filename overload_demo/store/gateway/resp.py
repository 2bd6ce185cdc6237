"""One pipelined connection to Redis: many requests under way, replies matched in the order of sending.

The server reads the commands that gather while it works together, and puts them on disk with one fsync.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis

from overload_demo.errors import Outcome, StoreUnavailableError

ReplyError = hiredis.ReplyError

INCOMPLETE = object()
MAX_REPLY_BYTES = 32 * 1024 * 1024  # all replies to one request together; the client of this package takes no more
MAX_REPLY_ELEMENTS = 1_000_000  # of arrays; one takes about 100 bytes while the answer is made
RETIRE_S = 0.5  # a server that works answers within it
LOST = "the connection to the server was lost"
TOO_LARGE = "ERR max request size exceeded."
_BULK, _ARRAY, _MINUS = b"$*-"
_pack_command = cast(Callable[[tuple[str | bytes, ...]], bytes], hiredis.pack_command)  # its stub: tuples of one


def pack(arguments: Sequence[str | bytes]) -> bytes:
    """One command in wire form. A lone surrogate, which has no bytes, becomes U+FFFD."""
    try:
        return _pack_command(tuple(arguments))
    except UnicodeEncodeError:  # UTF-16 can hold a lone surrogate, and its decoder replaces it
        recoded = (
            one if isinstance(one, bytes) else one.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            for one in arguments
        )
        return _pack_command(tuple(recoded))


@dataclass(slots=True)
class ReplyBudget:
    """How much the replies to one request may still take, in bytes and in elements of arrays."""

    bytes_left: int = MAX_REPLY_BYTES
    elements_left: int = MAX_REPLY_ELEMENTS

    def is_exceeded_by(self, size: int = 0) -> bool:
        """Whether a reply of ``size`` bytes is too large."""
        return size > self.bytes_left or self.elements_left < 0

    def error(self) -> str:
        """Return the error that takes the place of a dropped reply."""
        if self.elements_left < 0:
            limit, left, unit = MAX_REPLY_ELEMENTS, self.elements_left, "elements in the"
        else:
            limit, left, unit = MAX_REPLY_BYTES, self.bytes_left, "bytes of"
        return f"{TOO_LARGE} Limit: {limit} {unit} replies to a request, Actual: {limit - left}"


class ReplyCutter:
    """Cut a stream into whole replies without parsing them.

    A reply that exceeds its budget is dropped as it arrives, and read as an error reply.
    """

    def __init__(self) -> None:
        self._unread = bytearray()
        self._at, self._parts_left = 0, 1  # end of what was examined of the first reply, perhaps still to arrive
        self._dropped = 0  # bytes of the first reply
        self._uncounted = 0  # elements that no budget has paid yet, at most

    def feed(self, data: bytes) -> None:
        """Append the next bytes of the stream. An array by itself is examined by the C parser, five times as fast."""
        is_whole = data.startswith(b"*") and not self.has_data() and _is_whole(data)
        self._unread += data
        if is_whole:
            self._at, self._parts_left, self._uncounted = len(data), 0, data.count(b"\r\n")

    def gets(self, budget: ReplyBudget) -> Any:
        """Return the next reply's bytes, or ``INCOMPLETE``; raises ValueError for bytes that are no reply."""
        unread, at, parts_left = self._unread, self._at, self._parts_left
        if self._uncounted:
            budget.elements_left -= self._uncounted
            self._uncounted = 0
        while parts_left and (line_end := unread.find(b"\r\n", at)) >= 0:
            kind, number, at = unread[at], at + 1, line_end + 2
            if kind == _BULK and unread[number] != _MINUS:
                at += int(unread[number:line_end]) + 2
            elif kind == _ARRAY and unread[number] != _MINUS:
                parts_left += (length := int(unread[number:line_end]))
                budget.elements_left -= length
            elif kind not in b"+-:$*":
                raise ValueError("not a reply")
            parts_left -= 1
        self._at, self._parts_left = at, parts_left
        is_complete, size = not parts_left and at <= len(unread), self._dropped + at
        is_too_large = budget.is_exceeded_by(size)
        if not is_complete:
            if is_too_large:
                self._take(min(at, len(unread)))
            return INCOMPLETE
        budget.bytes_left -= size
        reply = self._take(at)
        self._parts_left, self._dropped = 1, 0
        return b"-%b\r\n" % budget.error().encode() if is_too_large else reply

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        self._at -= size
        self._dropped += size
        return taken

    def has_data(self) -> bool:
        """Whether bytes of a further reply have arrived."""
        return bool(self._unread or self._dropped)


def elements_of(array: bytes) -> list[bytes]:
    """The elements of an array reply, unparsed."""
    head, _, rest = array.partition(b"\r\n")
    cutter = ReplyCutter()
    cutter.feed(rest)
    return [cutter.gets(ReplyBudget()) for _ in range(int(head[1:]))]


def error_in(reply: bytes) -> str | None:
    """Return the text of an error reply; None if the reply is no error."""
    return reply[1:-2].decode(errors="replace") if reply.startswith(b"-") else None


def text_reader() -> hiredis.Reader:
    """A parser whose strings are ``str``, with U+FFFD where they are not UTF-8."""
    return hiredis.Reader(encoding="utf-8", errors="replace", notEnoughData=INCOMPLETE)


_readers: dict[bool, hiredis.Reader] = {}


def parsed(reply: bytes, *, as_text: bool = True) -> Any:
    """Parse one reply, its strings as ``str`` or as ``bytes``; ``INCOMPLETE`` for any other number of replies.

    Raises RecursionError if it is nested too deeply.
    """
    reader = _readers.pop(as_text, None) or (text_reader() if as_text else hiredis.Reader(notEnoughData=INCOMPLETE))
    try:
        reader.feed(reply)
        value = reader.gets()
    except hiredis.ProtocolError:
        raise RecursionError from None
    if value is INCOMPLETE or reader.has_data():  # this reader cannot be used again
        return INCOMPLETE
    _readers[as_text] = reader
    return value


def _is_whole(data: bytes) -> bool:
    try:
        return parsed(data, as_text=False) is not INCOMPLETE
    except RecursionError:
        return False


@dataclass(slots=True)
class _Call:
    """A request under way."""

    expected: int
    future: asyncio.Future[list[bytes]]
    budget: ReplyBudget
    replies: list[bytes] = field(default_factory=list)


class RedisConnection(asyncio.Protocol):
    """A connection to one server; ``closed`` is done once it has ended, for any reason."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cutter = ReplyCutter()
        self._calls: deque[_Call] = deque()
        self._transport: asyncio.Transport | None = None
        self._received, self._idle_looks = 0, 0
        self.is_retired = False
        self._last_seen: tuple[int, int, int] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request can still be sent."""
        return self._transport is not None and not self._transport.is_closing() and not self.is_retired

    def send(self, packed: bytes, expected: int, budget: ReplyBudget | None = None) -> asyncio.Future[list[bytes]]:
        """Send packed commands in one piece; the future holds their ``expected`` replies, unparsed and in order.

        No command of another request comes between them. Replies beyond ``budget`` are error replies. Both fail with
        :class:`StoreUnavailableError`: this call when nothing was sent, the future with an unknown outcome.
        """
        transport = self._transport
        if transport is None or not self.is_open:
            raise StoreUnavailableError("there is no connection to the server")
        future: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(expected, future, budget or ReplyBudget()))
        transport.write(packed)
        return future

    async def ask(self, *arguments: str) -> Any:
        """Run one command and return its reply, parsed; raises :class:`ReplyError` when that is an error."""
        (reply,) = await self.send(pack(arguments), 1)
        if (error := error_in(reply)) is not None:
            raise ReplyError(error)
        return parsed(reply)

    def as_stream(self) -> tuple[asyncio.StreamReader, asyncio.Transport]:
        """Hand the connection over as a stream with flow control; call while no request is under way."""
        reader, transport = asyncio.StreamReader(), cast(asyncio.Transport, self._transport)
        transport.set_protocol(asyncio.StreamReaderProtocol(reader))
        reader.set_transport(transport)
        return reader, transport

    def count_idle_looks(self) -> int:
        """Return how many calls in a row have found the oldest request waiting and no byte sent or received."""
        seen = None
        if self._calls and self._transport is not None:
            seen = (id(self._calls[0]), self._received, self._transport.get_write_buffer_size())
        self._idle_looks = self._idle_looks + 1 if seen and seen == self._last_seen else 0
        self._last_seen = seen
        return self._idle_looks

    def retire(self) -> None:
        """Take no further request, and close once those under way are answered, or have had ``RETIRE_S``."""
        self.is_retired = True
        asyncio.get_running_loop().call_later(RETIRE_S if self._calls else 0, self.close)
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        """Close the connection; requests under way fail."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: give each complete reply to the oldest request."""
        self._received += len(data)
        calls, cutter = self._calls, self._cutter
        cutter.feed(data)
        try:
            while calls and (reply := cutter.gets(calls[0].budget)) is not INCOMPLETE:
                call = calls[0]
                call.replies.append(reply)
                if len(call.replies) == call.expected:
                    calls.popleft()
                    if not call.future.done():  # the request may have been cancelled meanwhile
                        call.future.set_result(call.replies)
            # A reply to no request: the order can no longer be trusted.
            if not calls and (self.is_retired or cutter.has_data()):
                self.close()
        except ValueError:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop: fail all requests under way, their outcome is unknown."""
        for call in self._calls:
            if not call.future.done():
                call.future.set_exception(StoreUnavailableError(LOST, Outcome.UNKNOWN))
        self._calls.clear()
        if not self.closed.done():
            self.closed.set_result(None)
