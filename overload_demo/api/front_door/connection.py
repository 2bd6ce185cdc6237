"""One connection inside the gate: what it may send, how much memory that takes, and how it ends.

Heads are bounded, and what is pipelined is parsed only as far as it can be answered. What cannot be read is refused
with a problem document, but only after the answers owed to earlier requests of the same connection, whose jobs may be
in the store already: a client that reads 400 first would submit an accepted job again. Who closes its sending half
still gets its answers.
"""

import asyncio
import select
import socket
from time import perf_counter
from typing import TYPE_CHECKING, Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from overload_demo.api.problems import MEDIA_TYPE, document
from overload_demo.http_server import CoalescingTransport

if TYPE_CHECKING:
    from overload_demo.api.front_door.gate import Gate

MAX_HEAD_BYTES = 32_768  # request line and headers; also what may come between two bytes of a body, and after the last
MAX_HEADERS = 100  # each takes far more memory than its bytes
VERSIONS = {"1.0", "1.1"}
PIECE_BYTES = 4_096  # parsed in one go; then the bounds are looked at
LINGER_S = 2.0  # after the last words, for them to arrive: closing with bytes unread would reset the connection


class Flow(FlowControl):
    """uvicorn's flow control; while ``is_held`` nobody resumes reading."""

    is_held = False

    def resume_reading(self) -> None:
        """Read on, unless held."""
        if self.read_paused and not self.is_held:
            super().resume_reading()


class GatedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol within bounds, keeping times for the gate and telling it of its end."""

    NEVER = float("inf")
    flow: Flow

    def __init__(self, gate: "Gate", **uvicorn_arguments: Any) -> None:
        super().__init__(**uvicorn_arguments)
        self._gate, self._answered = gate, gate.metrics.answered
        self._heads_read_at: list[float] = []  # of requests without an answer: two at most
        self.arrival: asyncio.Task[Any] | None = None
        self.waited_since = self.idle_since = self._unread_since = self.NEVER
        self.url, self.headers = b"", []
        self._unparsed = b""  # read, but not to be parsed before earlier requests have been answered
        self._in_head = True  # what comes next is part of a head, or the first byte of one
        self._head_again = b""  # of a request that offers another protocol, without the offer
        self._barren = 0  # bytes of the present request since its beginning, or since its last byte of body
        self._last_words: bytes | None = None  # once there are any, even empty ones, nothing more is parsed
        self._has_eof = self._has_hung_up = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request is awaited from now on."""
        super().connection_made(transport)
        self._answers = CoalescingTransport(transport, self.loop)
        self.transport = self._answers  # type: ignore[assignment]
        self.flow = Flow(transport)
        self.waited_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room."""
        super().connection_lost(exc)
        self._gate.leave(self)

    def data_received(self, data: bytes) -> None:
        """Read on, within bounds; what comes after the last words is thrown away."""
        if len(data) > PIECE_BYTES or self.pipeline or self._unparsed or self._last_words is not None:
            self._unparsed += data
            self._parse_on()
        else:
            self._parse(data)

    def _parse_on(self) -> None:
        """Parse what was read, but not beyond a request that has to wait for another one's answer."""
        at = 0
        while at < len(self._unparsed) and self._last_words is None and not self.pipeline:
            self._parse(self._unparsed[at : at + PIECE_BYTES])
            at += PIECE_BYTES
        self._unparsed = self._unparsed[at:] if self._last_words is None else b""
        self.flow.is_held = bool(self._unparsed)
        if self.flow.is_held:
            self.flow.pause_reading()

    def _parse(self, piece: bytes, head: bytes = b"") -> None:
        """Parse what was read, behind a head that was read before."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(head + piece)
        except HttpParserUpgrade as offer:
            self._decline((head + piece)[offer.args[0] :])
            return
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._last_words is not None:
            return
        if self.waited_since != self.NEVER:  # the request is not whole
            self._bound(len(piece))
        elif self.idle_since != self.NEVER:  # blank lines where a request should begin
            self.waited_since = self.loop.time()
            self._bound(len(piece))

    def _decline(self, rest: bytes) -> None:
        """Parse a head again without its offer of another protocol, which the parser takes for the request's end."""
        head, self._head_again, self._barren = self._head_again, b"", 0
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._parse(rest, head)

    def _head_without_offer(self) -> bytes:
        kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        return b"%b %b HTTP/%b\r\n%b\r\n" % (self.parser.get_method(), self.url, version, b"".join(kept))

    def _bound(self, size: int) -> None:
        self._barren += size
        if len(self.headers) > MAX_HEADERS:
            self._refuse(431, f"more than {MAX_HEADERS} headers")
        elif self._barren <= MAX_HEAD_BYTES:
            return
        elif not self._in_head:
            self._refuse(400, f"chunk extensions or trailers of more than {MAX_HEAD_BYTES} bytes")
        elif len(self.url) > MAX_HEAD_BYTES // 2:
            self._refuse(414, f"the URL does not fit into {MAX_HEAD_BYTES} bytes of headers")
        else:
            self._refuse(431, f"the headers are larger than {MAX_HEAD_BYTES} bytes")

    def eof_received(self) -> bool:  # type: ignore[override]
        """It sends no more, but may be waiting for answers to what is whole."""
        self._has_eof = True
        if self._has_hung_up:
            self.transport.close()
        elif self._last_words is None:
            if self._barren or not self._in_head:
                self._refuse(400, "the request ended before it was complete")
            else:
                self._end(b"", owes=self._is_answering)
        return True  # closing is up to us

    def send_400_response(self, msg: str) -> None:
        """uvicorn's hook for what is no HTTP, or has made a callback fail."""
        if self._in_head and len(self.headers) > MAX_HEADERS:
            self._refuse(431, f"more than {MAX_HEADERS} headers")
        else:
            self._refuse(400, "not a valid HTTP request")

    def _should_upgrade(self) -> bool:
        return False  # uvicorn's hook: every offer is declined

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: int, detail: str) -> None:
        """Answer a request that cannot be read any further."""
        words, owes = self._problem(status, detail), self._is_answering
        if not self._in_head:  # the app has begun to answer it, or is to begin after earlier ones
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                words = b""
            owes = bool(self.pipeline)
            if owes:
                self.pipeline.popleft()
        self._end(words, owes)

    def _problem(self, status: int, detail: str) -> bytes:
        """A whole HTTP answer, made outside the app, after which the connection ends."""
        body = document(status, detail)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body

    def _end(self, words: bytes, owes: bool) -> None:
        """Parse no more, and end with these words, after the answers we owe."""
        self._last_words, self.waited_since = words, self.NEVER
        if not owes:
            self._hang_up()

    def _hang_up(self) -> None:
        """Say the last words; unless the client is through, wait for it to close, so that it does read them."""
        if self.transport.is_closing():
            return
        self._has_hung_up = True
        if self._last_words:
            self.transport.write(self._last_words)
            self._answered(self._answers.status, 0.0)
        if self._has_eof:
            self.transport.close()
            return
        self.idle_since = self.loop.time()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def on_message_begin(self) -> None:
        """A further request has begun."""
        super().on_message_begin()
        self.idle_since = self.NEVER
        if self.waited_since == self.NEVER:
            self.waited_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """The head was read: its time counts from now on. While others wait outside, this answer is the last."""
        if len(self.headers) > MAX_HEADERS or not self._is_http():
            raise ValueError("too many headers, or no HTTP/1")  # the parser gives up, and asks for a 400
        if self.parser.should_upgrade():
            self._head_again = self._head_without_offer()
            return
        super().on_headers_complete()
        self._heads_read_at.append(perf_counter())
        self._in_head = False
        if self._gate.is_crowded:
            self.cycle.keep_alive = False

    def _is_http(self) -> bool:
        """Whether this is a request of HTTP/1.x to one host: the parser takes others, which we would answer wrongly."""
        hosts = [name for name, _ in self.headers].count(b"host")
        version = self.parser.get_http_version()
        is_tunnel = self.parser.should_upgrade() and self.parser.get_method() == b"CONNECT"
        return version in VERSIONS and (hosts == 1 or (not hosts and version == "1.0")) and not is_tunnel

    def on_body(self, body: bytes) -> None:
        """The body has come on."""
        self._barren = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: from now on it is we who take our time."""
        if self._head_again:
            return
        self.waited_since, self._in_head, self._barren = self.NEVER, True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It has had its answer: idle, unless another request's turn has come, or the last words'."""
        self._answers.flush()
        self._answered(self._answers.status, perf_counter() - self._heads_read_at.pop(0))
        has_next = bool(self.pipeline)
        if not has_next and not self._barren:
            self.idle_since = self.loop.time()
        super().on_response_complete()
        if has_next:
            self._go_on()
        elif self._last_words is not None:
            self._hang_up()

    def _go_on(self) -> None:
        """The next request is being answered: there may be room for more, and time for the rest of it."""
        if self.transport.is_closing():
            return
        if self.waited_since != self.NEVER:
            self.waited_since = self.loop.time()
        if self._unparsed:
            self._parse_on()
            self.flow.resume_reading()

    def has_kept_waiting_since(self, now: float) -> float:
        """Since when it has owed us the rest of a request, or has not taken its answers."""
        if self.transport is None or not self.transport.get_write_buffer_size():
            self._unread_since = self.NEVER
        elif self._unread_since == self.NEVER:
            self._unread_since = now
        return min(self._unread_since, self.NEVER if self.pipeline else self.waited_since)

    def shutdown(self) -> None:
        """End an idle connection, or any other after its answer; not one whose next request is there to be read.

        A process that was held up would reset requests that had come in time.
        """
        if self._is_answering or not self._has_unread():
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """uvicorn's hook: idle for long."""
        self.shutdown()

    def _has_unread(self) -> bool:
        return not self.transport.is_closing() and is_readable(self.transport.get_extra_info("socket"))

    def give_up(self) -> None:
        """Too slow: end it. Nothing of an incomplete request has been enqueued."""
        self.transport.abort()


def is_readable(*sockets: socket.socket) -> bool:
    """Whether any of them has something to be read, or somebody to be let in; looks without waiting."""
    poll = select.poll()
    for one in sockets:
        poll.register(one.fileno(), select.POLLIN)
    return bool(poll.poll(0))
