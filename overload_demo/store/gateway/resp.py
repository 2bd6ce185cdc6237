"""One pipelined connection to Redis: many requests under way, replies matched in the order of sending.

The server reads the commands that gather while it works together, and puts them on disk with one fsync.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from overload_demo.errors import Outcome, StoreUnavailableError

ReplyError = hiredis.ReplyError

INCOMPLETE = object()
MAX_REPLY_BYTES = 32 * 1024 * 1024  # all replies to one request together; the client of this package takes no more
MAX_REPLY_ELEMENTS = 1_000_000  # of arrays; one takes about 100 bytes while the answer is made
KEPT_BYTES = 1024 * 1024  # a larger reply is cut out of the stream before it is parsed
TOO_LARGE = "ERR max request size exceeded."
_BULK, _ARRAY = b"$*"
_pack_command = cast(Callable[[tuple[str | bytes, ...]], bytes], hiredis.pack_command)  # its stub: tuples of one


class RedisConnectionLostError(StoreUnavailableError):
    """The connection ended before the replies arrived: whether the commands ran is unknown."""

    def __init__(self) -> None:
        super().__init__("the connection to the server was lost", Outcome.UNKNOWN)


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


class RawReader:
    """Cut a stream into whole replies without parsing them; reads like :class:`hiredis.Reader`.

    A reply that exceeds the budget given to :meth:`gets` is dropped as it arrives, and read as an error reply.
    """

    def __init__(self) -> None:
        self._unread = bytearray()
        self._at, self._parts_left = 0, 1  # bytes of the first reply that were examined, and parts still to examine
        self._dropped, self._to_drop = 0, 0  # bytes of the first reply dropped already, and still to arrive

    def feed(self, data: bytes) -> None:
        """Append the next bytes of the stream."""
        dropped = min(len(data), self._to_drop)
        self._to_drop -= dropped
        self._unread += memoryview(data)[dropped:] if dropped else data

    def gets(self, budget: "ReplyBudget | None" = None) -> Any:
        """Return the next reply's bytes, or ``INCOMPLETE``; raises ValueError for bytes that are no reply."""
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
            must_drop = self._dropped or (budget is not None and budget.is_exceeded_by(end))
            if end > len(self._unread) and not must_drop:
                return INCOMPLETE
            if kind == _ARRAY and length > 0:
                self._parts_left += length
                if budget is not None:
                    budget.elements_left -= length
            self._at, self._parts_left = end, self._parts_left - 1
            if must_drop:
                self._drop()
        return INCOMPLETE if self._to_drop else self._take(budget)

    def _take(self, budget: "ReplyBudget | None") -> bytes:
        reply = bytes(self._unread[: self._at])
        if budget is not None:
            budget.bytes_left -= self._dropped + self._at
            if self._dropped:
                reply = b"-%b\r\n" % budget.error().encode()
        del self._unread[: self._at]
        self._at, self._parts_left, self._dropped = 0, 1, 0
        return reply

    def _drop(self) -> None:
        """Drop what was examined of the first reply, and what is still to arrive of its last part."""
        self._dropped += self._at
        self._to_drop = max(0, self._at - len(self._unread))
        del self._unread[: self._at]
        self._at = 0

    def rest(self) -> bytes:
        """Return what follows the last reply; call it directly after :meth:`gets` has returned one."""
        return bytes(self._unread)

    def has_data(self) -> bool:
        """Whether bytes of a further reply have arrived."""
        return bool(self._unread or self._at or self._dropped or self._parts_left != 1)


class ReplyBudget:
    """How much the replies to one request may still take, in bytes and in elements of arrays."""

    __slots__ = ("bytes_left", "elements_left")

    def __init__(self) -> None:
        self.bytes_left, self.elements_left = MAX_REPLY_BYTES, MAX_REPLY_ELEMENTS

    def take(self, data: bytes, times: int = 1) -> None:
        """Count received bytes; a line is at most one element."""
        self.bytes_left -= times * len(data)
        self.elements_left -= times * data.count(b"\r\n")

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


def elements_of(array: bytes) -> list[bytes]:
    """The elements of an unparsed array reply, unparsed."""
    head, _, rest = array.partition(b"\r\n")
    reader = RawReader()
    reader.feed(rest)
    return [reader.gets() for _ in range(int(head[1:]))]


def parsed(reply: bytes, reader: hiredis.Reader | None = None) -> Any:
    """Parse a reply, its strings as bytes unless a ``reader`` decodes them; too deep nesting is a ReplyError."""
    reader = reader or hiredis.Reader()
    try:
        reader.feed(reply)
        return reader.gets()
    except hiredis.ProtocolError as error:
        return ReplyError(f"ERR the reply cannot be parsed: {error}")


def text_reader() -> hiredis.Reader:
    """A parser whose strings are ``str``, with U+FFFD where they are not UTF-8."""
    return hiredis.Reader(encoding="utf-8", errors="replace", notEnoughData=INCOMPLETE)


class _Call:
    """A request under way."""

    __slots__ = ("budget", "expected", "future", "replies")

    def __init__(self, expected: int, future: asyncio.Future[list[Any]], budget: ReplyBudget) -> None:
        self.expected, self.future, self.budget = expected, future, budget
        self.replies: list[Any] = []


class RedisConnection(asyncio.Protocol):
    """A connection to one server; ``closed`` is done once it has ended, for any reason."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = text_reader()
        self._cutter: RawReader | None = None  # while a large reply arrives
        # The bytes received since the start of some reply, and how many whole replies they begin with.
        self._kept: list[bytes] = []
        self._kept_bytes, self._known = 0, 0
        self._is_raw = False
        self._calls: deque[_Call] = deque()
        self._transport: asyncio.Transport | None = None
        self._received, self._idle_looks = 0, 0
        self._last_seen: tuple[int, int, int] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request can still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, packed: bytes, expected: int, budget: ReplyBudget | None = None) -> asyncio.Future[list[Any]]:
        """Send packed commands in one piece; the future holds their ``expected`` replies, in order.

        No command of another request comes between them. Strings are ``str`` (U+FFFD where they are not UTF-8) and
        errors :class:`ReplyError`, also in place of replies beyond ``budget``; after :meth:`stop_parsing` all are
        ``bytes``. The future fails with :class:`RedisConnectionLostError`. Raises :class:`StoreUnavailableError` when
        nothing was sent.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise StoreUnavailableError("there is no connection to the server")
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(expected, future, budget or ReplyBudget()))
        transport.write(packed)
        return future

    async def ask(self, *arguments: str) -> Any:
        """Run one command and return its reply; raises :class:`ReplyError` when that is an error."""
        (reply,) = await self.send(pack(list(arguments)), 1)
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def stop_parsing(self) -> None:
        """Return replies as the server's ``bytes`` from now on; call while no request is under way."""
        self._is_raw, self._cutter = True, RawReader()

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
        try:
            if self._cutter is None:
                self._read_whole(data)
            else:
                self._cutter.feed(data)
                self._read_cut(self._cutter)
        except ValueError:
            self.close()

    def _read_whole(self, data: bytes) -> None:
        """Parse replies; leave one that is large, or nested too deeply for the parser, to the cutter."""
        calls, reader = self._calls, self._reader
        self._kept.append(data)
        self._kept_bytes += len(data)
        if calls:
            calls[0].budget.take(data)
        try:
            reader.feed(data)
            size = reader.len()
            while calls and (reply := reader.gets()) is not INCOMPLETE:
                self._give(reply)
                self._known += 1
                if (left := reader.len()) != size:  # the reader has discarded all up to this reply's end
                    self._keep(data[len(data) - left :])
                    size = left
            if not calls and reader.has_data():  # a reply to no request: the order can no longer be trusted
                self.close()
            if self._kept_bytes <= KEPT_BYTES:
                return
        except hiredis.ProtocolError:
            pass
        self._cut()

    def _keep(self, data: bytes) -> None:
        self._kept, self._kept_bytes, self._known = [data] if data else [], len(data), 0

    def _cut(self) -> None:
        """Continue without the parser until the next reply is complete."""
        kept, cutter = b"".join(self._kept), RawReader()
        cutter.feed(kept)
        for _ in range(self._known):
            cutter.gets()
        if self._calls:
            self._calls[0].budget.take(kept, -1)  # the cutter counts it again
        self._cutter, self._reader = cutter, text_reader()
        self._keep(b"")
        self._read_cut(cutter)

    def _read_cut(self, cutter: RawReader) -> None:
        while self._calls:
            reply = cutter.gets(self._calls[0].budget)
            if reply is INCOMPLETE:
                return
            if self._is_raw:
                self._give(reply)
                continue
            self._give(parsed(reply, text_reader()))
            self._cutter = None
            if rest := cutter.rest():
                self._read_whole(rest)
            return
        if cutter.has_data():
            self.close()

    def _give(self, reply: Any) -> None:
        call = self._calls[0]
        if call.budget.is_exceeded_by() and not self._is_raw:
            reply = ReplyError(call.budget.error())
        call.replies.append(reply)
        if len(call.replies) == call.expected:
            self._calls.popleft()
            if not call.future.done():  # the request may have been cancelled meanwhile
                call.future.set_result(call.replies)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop: fail all requests under way, their outcome is unknown."""
        for call in self._calls:
            if not call.future.done():
                call.future.set_exception(RedisConnectionLostError())
        self._calls.clear()
        if not self.closed.done():
            self.closed.set_result(None)
