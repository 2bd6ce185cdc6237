"""One connection inside the gate: bounds on what a client may send, and how the connection ends.

Pipelined requests are parsed only as far as they can be answered. A malformed request gets a problem document, but only
after the pending responses: those jobs may be in the store already, and a client that reads a 400 first would submit
them again. A half-closed client still receives pending responses.
"""

import asyncio
import select
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Any

from httptools import HttpParserError
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from overload_demo.api.direct import DirectRequest, DirectRequests, with_head
from overload_demo.api.problems import MEDIA_TYPE, document
from overload_demo.http_server import OneWriteProtocol

MAX_HEAD_BYTES = 32_768  # request line and headers; also what may come between two bytes of a body, and after the last
MAX_HEADERS = 100  # each takes far more memory than its bytes
VERSIONS = {"1.0", "1.1"}
PIECE_BYTES = 4_096  # parsed at a time; then the bounds are checked
LINGER_S = 2.0  # before the close after a final response: closing with unread input sends RST
NEVER = float("inf")


class Flow(FlowControl):
    """uvicorn's flow control, which does not resume reading while ``is_held``."""

    is_held = False

    def resume_reading(self) -> None:
        """Resume reading unless held."""
        if self.read_paused and not self.is_held:
            super().resume_reading()


class GatedProtocol(OneWriteProtocol):
    """uvicorn's HTTP protocol with bounds, and with the times that the gate needs (of the event loop's clock).

    ``request_since``: when the unfinished request began. ``idle_since``: when the last response was complete.
    ``answered`` gets the status and seconds of each response. ``is_crowded``: whether to serve one request only.
    """

    flow: Flow

    def __init__(
        self,
        direct: DirectRequests,
        answered: Callable[[bytes, float], None],
        is_crowded: Callable[[], bool],
        leave: Callable[["GatedProtocol"], None],
        **uvicorn_arguments: Any,
    ) -> None:
        super().__init__(**uvicorn_arguments)
        self._direct, self._answered, self._is_crowded, self._leave = direct, answered, is_crowded, leave
        self._unserved: DirectRequest | None = None  # a direct request that is not complete
        self._heads_read_at: list[float] = []  # of requests without a response: two at most
        self.setup: asyncio.Task[Any] | None = None
        self.request_since = self.idle_since = self._unread_since = NEVER
        self._unparsed = b""  # input behind a request that waits for an earlier response
        self._in_head = True  # the next byte belongs to a head
        self._overhead = 0  # bytes since the request began, or since its last byte of body
        self._final: bytes | None = None  # the final response; once set (even b""), parsing stops
        self._has_eof = self._is_ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first request."""
        super().connection_made(transport)
        self._direct_transport = transport
        self.flow = Flow(transport)
        self.request_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the gate, and leave no reference cycle, which would wait for the garbage collector."""
        super().connection_lost(exc)
        self.cycle = None  # type: ignore[assignment]
        self._leave(self)

    # ---- reading

    def data_received(self, data: bytes) -> None:
        """Parse within bounds; discard what comes after the final response."""
        if len(data) > PIECE_BYTES or self._must_wait or self._unparsed or self._final is not None:
            self._unparsed += data
            self._parse_on()
        else:
            self._parse(data)

    def _parse_on(self) -> None:
        """Parse what was read, up to a request that has to wait for another one's response."""
        at = 0
        while at < len(self._unparsed) and self._final is None and not self._must_wait:
            self._parse(self._unparsed[at : at + PIECE_BYTES])
            at += PIECE_BYTES
        self._unparsed = self._unparsed[at:] if self._final is None else b""
        self.flow.is_held = bool(self._unparsed)
        if self.flow.is_held:
            self.flow.pause_reading()

    def _parse(self, piece: bytes) -> None:
        try:
            self._feed(piece)
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._final is not None:
            return
        if self.request_since != NEVER:  # the request is not complete
            self._check_bounds(len(piece))
        elif self.idle_since != NEVER:  # blank lines before a request
            self.request_since = self.loop.time()
            self._check_bounds(len(piece))

    def _check_bounds(self, size: int) -> None:
        self._overhead += size
        if len(self.headers) > MAX_HEADERS:
            self._refuse(431, f"more than {MAX_HEADERS} headers")
        elif self._overhead <= MAX_HEAD_BYTES:
            return
        elif not self._in_head:
            self._refuse(400, f"chunk extensions or trailers of more than {MAX_HEAD_BYTES} bytes")
        elif len(self.url) > MAX_HEAD_BYTES // 2:
            self._refuse(414, f"the URL does not fit into {MAX_HEAD_BYTES} bytes of headers")
        else:
            self._refuse(431, f"the headers are larger than {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """Start the request timer. uvicorn's hook makes an ASGI scope too, which only the app needs."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self.idle_since = NEVER
        if self.request_since == NEVER:
            self.request_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Check the head, and note when it was read. While clients wait outside, this response is the last."""
        if len(self.headers) > MAX_HEADERS:
            raise ValueError("too many headers")  # the parser stops and uvicorn sends a 400
        if not self._is_answering and not self.flow.write_paused:
            server = self.server[0] if self.server else ""
            self._unserved = self._direct.recognize(self.parser, self.url, self.headers, server)
        if self._unserved is not None:
            self.cycle = self._unserved  # type: ignore[assignment]
        elif not self._is_http():
            raise ValueError("no HTTP/1")
        elif self.parser.should_upgrade():
            self._set_offer_aside()
            return
        else:
            self._hand_to_app()
        self._heads_read_at.append(perf_counter())
        self._in_head = False
        if self._is_crowded():
            self.cycle.keep_alive = False

    def _hand_to_app(self) -> None:
        """Let uvicorn make the ASGI scope of a complete head and start the app's task."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers  # the list that the scope holds
        super().on_headers_complete()

    def _is_http(self) -> bool:
        """Whether this is an HTTP/1.x request to one host; the parser accepts others."""
        hosts = [name for name, _ in self.headers].count(b"host")
        version = self.parser.get_http_version()
        is_tunnel = self.parser.should_upgrade() and self.parser.get_method() == b"CONNECT"
        return version in VERSIONS and (hosts == 1 or (not hosts and version == "1.0")) and not is_tunnel

    def on_body(self, body: bytes) -> None:
        """Accept a part of the body."""
        self._overhead = 0
        if self._unserved is not None:
            self._unserved.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the request timer: the request is complete."""
        if self._head_again:
            return
        self.request_since, self._in_head, self._overhead = NEVER, True, 0
        request, self._unserved = self._unserved, None
        if request is not None:
            request.answer = self._write_direct
            if self._direct.serve(request):
                return
            self.cycle = None  # type: ignore[assignment]
            self._hand_to_app()
            self.cycle.keep_alive &= request.keep_alive
            super().on_body(request.body)
        super().on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer complete requests of a half-closed client; refuse an incomplete one."""
        self._has_eof = True
        if self._is_ended:
            self.transport.close()
        elif self._final is None:
            if self._overhead or not self._in_head:
                self._refuse(400, "the request ended before it was complete")
            else:
                self._finish(b"", self._is_answering)
        return True  # this protocol closes the transport

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or has made a callback fail (uvicorn's hook)."""
        if self._in_head and len(self.headers) > MAX_HEADERS:
            self._refuse(431, f"more than {MAX_HEADERS} headers")
        else:
            self._refuse(400, "not a valid HTTP request")

    # ---- answering

    @property
    def _must_wait(self) -> bool:
        """Whether no further request may be parsed: one waits for its turn, or a direct one is being answered."""
        is_served = isinstance(self.cycle, DirectRequest) and self._unserved is None
        return bool(self.pipeline) or (is_served and not self.cycle.response_complete)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _write_direct(self, request: DirectRequest, status_line: bytes, rest: bytes) -> None:
        """Write the response to a direct request in one write, unless the client has left."""
        if self._direct_transport.is_closing():
            return
        self._direct_transport.write(self._whole(status_line, rest, keep_alive=request.keep_alive))
        request.response_complete = True
        self._responses.status = status_line[9:12]
        if not request.keep_alive:
            self._direct_transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """Start the next request or the final response, if one is due; otherwise the connection is idle.

        Overrides uvicorn's hook, which starts a timer for each response; the gate closes idle connections instead.
        """
        self._responses.flush()
        self._answered(self._responses.status, perf_counter() - self._heads_read_at.pop(0))
        self.server_state.total_requests += 1
        if not self.pipeline and not self._overhead:
            self.idle_since = self.loop.time()
        if self.transport.is_closing():
            return
        if self.request_since != NEVER:  # it had to wait for this response
            self.request_since = self.loop.time()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._final is not None:
            self._end()
        if self._unparsed:
            self._parse_on()
        self.flow.resume_reading()

    def _refuse(self, status: int, detail: str) -> None:
        """Answer a request that cannot be read any further."""
        final, is_pending = self._problem(status, detail), self._is_answering
        if not self._in_head:  # the app has begun to answer it, or will after earlier ones
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                final = b""
            is_pending = bool(self.pipeline)
            if is_pending:
                self.pipeline.popleft()
        self._finish(final, is_pending)

    def _problem(self, status: int, detail: str) -> bytes:
        """A whole response, made outside the app, after which the connection ends."""
        rest = with_head(MEDIA_TYPE.encode(), document(status, detail))
        return self._whole(STATUS_LINE[status], rest, keep_alive=False)

    def _whole(self, status_line: bytes, rest: bytes, *, keep_alive: bool) -> bytes:
        date = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
        return status_line + date + (b"" if keep_alive else b"connection: close\r\n") + rest

    def _finish(self, final: bytes, is_pending: bool) -> None:
        """Stop parsing, and end the connection with ``final``, after pending responses."""
        self._final, self.request_since = final, NEVER
        if not is_pending:
            self._end()

    def _end(self) -> None:
        """Send the final response; wait for the client to close, unless it has, so that it can read the response."""
        if self.transport.is_closing():
            return
        self._is_ended = True
        if self._final:
            self.transport.write(self._final)
            self._answered(self._responses.status, 0.0)
        if self._has_eof:
            self.transport.close()
            return
        self.idle_since = self.loop.time()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)

    # ---- for the gate and the server

    def stalled_since(self, now: float) -> float:
        """Since when the client has not completed a request or not read its responses."""
        if self.transport is None or not self.transport.get_write_buffer_size():
            self._unread_since = NEVER
        elif self._unread_since == NEVER:
            self._unread_since = now
        return min(self._unread_since, NEVER if self.pipeline else self.request_since)

    def shutdown(self) -> None:
        """Close an idle connection, another one after its response; keep one whose next request has arrived.

        A process that was suspended would otherwise reset requests that came in time.
        """
        has_unread = not self.transport.is_closing() and is_readable(self.transport.get_extra_info("socket"))
        if self._is_answering or not has_unread:
            super().shutdown()


def is_readable(*sockets: socket.socket) -> bool:
    """Whether any of the sockets has input, or a connection to accept; does not wait."""
    poll = select.poll()
    for one in sockets:
        poll.register(one.fileno(), select.POLLIN)
    return bool(poll.poll(0))
