"""The gateway's HTTP protocol: uvicorn's, with bounds on heads and on slow readers."""

import asyncio

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from overload_demo.http_server import CoalescingTransport

MAX_HEAD_BYTES = 65_536  # URL and headers together; also the bytes between two parts of a body
WRITE_TIMEOUT_S = 10.0  # in which the client reads no byte of its response


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, whose responses are sent at once, in one write.

    A request whose head exceeds ``MAX_HEAD_BYTES`` is answered with 414 or 431. An offer to switch to another protocol
    is ignored, as HTTP permits. The connection is closed when the client reads nothing for ``WRITE_TIMEOUT_S``.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the event loop."""
        super().connection_made(transport)
        self._one_write = self.transport = CoalescingTransport(transport, self.loop)  # type: ignore[assignment]
        self.url, self.headers = b"", []  # until a request begins
        self._head_bytes = 0  # received since the last part of a body, or the last request
        self._head_again = b""  # of a request that offers another protocol

    def data_received(self, data: bytes, head: bytes = b"") -> None:
        """Called by the event loop; ``head`` is parsed before ``data``."""
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(head + data)
        except HttpParserUpgrade as offer:  # the parser takes the end of the head for the end of the request
            head_again, self._head_again = self._head_again, b""
            self.parser = HttpRequestParser(self)
            self.data_received((head + data)[offer.args[0] :], head_again)
        except HttpParserError:
            if not self._has_large_head():
                self.send_400_response("Invalid HTTP request received.")
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            status = 414 if len(self.url) > MAX_HEAD_BYTES // 2 else 431
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def _has_large_head(self) -> bool:
        if self._head_bytes <= MAX_HEAD_BYTES:
            return False
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES

    def on_headers_complete(self) -> None:
        """Called by the parser, which stops on an error."""
        if self._has_large_head():
            raise ValueError("the head is too large")
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            return
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("CONNECT is not supported")
        kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        self._head_again = b"%b %b HTTP/%b\r\n%b\r\n" % (self.parser.get_method(), self.url, version, b"".join(kept))

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if not self._head_again:
            self._head_bytes = 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Called once a response is written."""
        self._one_write.flush()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Called by the event loop: the client reads its response too slowly."""
        super().pause_writing()
        self._start_write_timer(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._write_timer.cancel()
        super().resume_writing()

    def _start_write_timer(self, unread: int) -> None:
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self._abort_unless_read, unread)

    def _abort_unless_read(self, unread_before: int) -> None:
        unread = self.transport.get_write_buffer_size()  # 0 once the connection has ended
        if unread >= unread_before:
            self.transport.abort()
        elif unread:
            self._start_write_timer(unread)
