"""The gateway's HTTP protocol: uvicorn's, with bounds that it does not have."""

import asyncio

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from overload_demo.http_server import CoalescingTransport

MAX_HEAD_BYTES = 65_536  # URL and headers together; also what stands between the pieces of a body
WRITE_TIMEOUT_S = 10.0  # without a byte of its response taken by the client


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection.

    A response leaves at once and in one piece. A request whose head exceeds ``MAX_HEAD_BYTES`` is answered with 414 or
    431. A client that takes nothing of its response for ``WRITE_TIMEOUT_S`` loses its connection. The offer to switch
    to another protocol is ignored, as HTTP permits.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the event loop."""
        super().connection_made(transport)
        self._one_write = self.transport = CoalescingTransport(transport, self.loop)  # type: ignore[assignment]
        self.url, self.headers = b"", []  # until a request begins
        self._barren = 0  # bytes since the last part of a body, or the last request
        self._head_again = b""  # of a request that offers another protocol
        self._write_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes, head: bytes = b"") -> None:
        """Called by the event loop; ``head`` was received before."""
        self._barren += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(head + data)
        except HttpParserUpgrade as offer:  # it takes the end of the head for the end of the request
            head_again, self._head_again = self._head_again, b""
            self.parser = HttpRequestParser(self)
            self.data_received((head + data)[offer.args[0] :], head_again)
        except HttpParserError:
            if not self._is_head_too_large():
                self.send_400_response("Invalid HTTP request received.")
        if self._barren > MAX_HEAD_BYTES and not self.transport.is_closing():
            status = 414 if len(self.url) > MAX_HEAD_BYTES // 2 else 431
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def _is_head_too_large(self) -> bool:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        return self._barren > MAX_HEAD_BYTES and size > MAX_HEAD_BYTES

    def on_headers_complete(self) -> None:
        """Called by the parser, which gives up on an error."""
        if self._barren > MAX_HEAD_BYTES and self._is_head_too_large():
            raise ValueError("the head is too large")
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            return
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("there are no tunnels here")
        kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        self._head_again = b"%b %b HTTP/%b\r\n%b\r\n" % (self.parser.get_method(), self.url, version, b"".join(kept))

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._barren = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if not self._head_again:
            self._barren = 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Called once a response is written."""
        self._one_write.flush()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Called by the event loop: the client does not take its response as fast as it comes."""
        super().pause_writing()
        size = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self._cut_unless_moved, size)

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._stop_write_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._stop_write_timer()
        super().connection_lost(exc)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()

    def _cut_unless_moved(self, size: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now >= size:
            self.transport.abort()
        else:
            self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self._cut_unless_moved, now)
