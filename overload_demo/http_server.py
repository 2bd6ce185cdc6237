"""What HTTP servers share: listening, Host and Accept headers, one write per response, no signal handlers."""

import asyncio
import errno
import math
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

import uvicorn
from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from overload_demo.errors import ConfigurationError

CROWD = 100_000  # connections that the kernel shall hold for the API at once
UNEVENNESS = 1.25  # the kernel spreads connections by a hash: room for the fullest queue
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{0,5})?")
KNOWN_HOSTS = 256  # decisions kept
# An entry of Accept that is refused (q=0), or whose version prometheus-client cannot parse: it raises.
_UNUSABLE = re.compile(r";\s*(?:q=0(?:\.0*)?\s*(?:;|$)|version=(?![0-9]{1,4}(?:\.[0-9]{1,4})*\s*(?:;|$)))")


def listen_tcp(host: str, port: int, backlog: int | None, *, shared: bool = False) -> socket.socket:
    """Open a listening TCP socket; port 0 takes a free one, and a ``backlog`` of None binds without listening.

    Several ``shared`` sockets can have one port. Raises :class:`ConfigurationError` if the address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # IPPROTO_TCP, not 0: asyncio sets TCP_NODELAY on accepted sockets only then.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            # Accepts connections of a killed predecessor in TIME_WAIT; a running one still holds the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            if backlog is not None:
                listener.listen(backlog)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror or error
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason}") from None
    return listener


def listen(host: str, port: int) -> list[socket.socket]:
    """Open the API's listening sockets on one port; their accept queues hold ``CROWD`` connections together.

    Several sockets share the port, each with the kernel's longest accept queue; it is one socket where the platform
    does not spread connections. Raises :class:`ConfigurationError` if the address cannot be had.
    """
    import resource  # not on Windows, where the store's command still imports this module

    try:
        backlog = int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        backlog = 128
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(math.ceil(CROWD * UNEVENNESS / backlog), descriptors // 16)
    if count <= 1 or not sys.platform.startswith("linux"):
        return [listen_tcp(host, port, backlog)]
    # A plain bind proves that the port is free; sockets that share a port also bind to a taken one.
    with listen_tcp(host, port, None) as probe:
        port = probe.getsockname()[1]
    return [listen_tcp(host, port, backlog, shared=True) for _ in range(count)]


def url_of(listeners: list[socket.socket]) -> str:
    """The base URL of listening sockets, as a client on this machine writes it."""
    host, port = listeners[0].getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - only compared
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HostRule:
    """Decides which Host headers are accepted, against DNS rebinding: ``allowed`` are extra names, ``*`` is any.

    A connection to a loopback address accepts loopback names and the allowed names. One to another address accepts
    every name; with allowed names it accepts only these, loopback names, and the address itself.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(allowed)
        self.refusal = lru_cache(KNOWN_HOSTS)(self._refusal)

    def _refusal(self, host: bytes, server: str) -> str | None:
        """Return why a Host header is refused on a connection to the address ``server``; None = accepted."""
        match = _HOST.fullmatch(host)
        if match is None:
            return "the Host header is not a host and a port"
        name = (match[1] or match[2]).decode().lower()
        is_open = "*" in self._allowed or not (self._allowed or _is_loopback(server))
        if is_open or name in {server, *self._allowed} or _is_loopback(name):
            return None
        return "this host name is not served here; the server's OVERLOAD_ALLOWED_HOSTS can name it"


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback


def usable_accept(accept: str) -> str:
    """Return the entries of an Accept header for metrics that are not refused and that prometheus-client can parse."""
    return ",".join(entry for entry in accept.replace('"', "").split(",") if not _UNUSABLE.search(entry))


class SignalFreeServer(uvicorn.Server):
    """A uvicorn server without its signal handlers, which the command that runs it installs.

    uvicorn's would take a notebook's Interrupt, and raise each signal again before the store's server has ended.
    ``options`` are those of :class:`uvicorn.Config`; the log gets warnings only.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, **options))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone; overrides uvicorn's hook."""
        yield


class CoalescingTransport:
    """A transport that gathers writes until :meth:`flush`, at the latest until the event loop's next turn.

    uvicorn writes the head and the body of a response separately, and each write is a system call that wakes the peer.
    ``status`` is that of the last response: every response passes here, and no body begins like a status line.
    ``accepted`` is the connection's socket: uvicorn asks for it twice, and uvloop opens another one each time.
    """

    status = b""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, accepted: socket.socket | None = None
    ) -> None:
        self._transport, self._loop, self._accepted = transport, loop, accepted
        self._unwritten: list[bytes] = []
        self.is_closing = transport.is_closing  # called often

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def get_extra_info(self, name: str) -> Any:
        """What asyncio's transports tell of the connection."""
        return self._accepted if name == "socket" and self._accepted else self._transport.get_extra_info(name)

    def write(self, data: bytes) -> None:
        """Write the data in this turn of the event loop or the next."""
        if not self._unwritten:
            self._loop.call_soon(self.flush)
        self._unwritten.append(data)
        if data[:1] == b"H" and data.startswith(b"HTTP/1.1 "):  # the first test is the cheap one
            self.status = data[9:12]

    def close(self) -> None:
        """Flush, then close."""
        self.flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Flush, then close the sending half."""
        self.flush()
        self._transport.write_eof()

    def flush(self) -> None:
        """Write what has gathered."""
        if self._unwritten:
            data, self._unwritten = b"".join(self._unwritten), []
            if not self._transport.is_closing():  # the client may have closed in this very turn
                self._transport.write(data)


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with one write a response; it ignores offers of another protocol, as HTTP permits.

    The parser takes the end of a head with an offer for the end of the request: the head is parsed again without it.
    ``on_headers_complete`` of a subclass calls :meth:`_set_offer_aside` for such a head and returns; while
    ``_head_again`` is set, its ``on_message_complete`` does nothing.
    """

    accepted: socket.socket | None = None  # the connection's, if this process has accepted it itself
    _head_again = b""  # of a request that offers another protocol, without the offer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the event loop."""
        self._responses = CoalescingTransport(transport, self.loop, self.accepted)
        super().connection_made(self._responses)  # type: ignore[arg-type]
        self.url, self.headers = b"", []  # until a request begins

    def _set_offer_aside(self) -> None:
        kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        self._head_again = b"%b %b HTTP/%b\r\n%b\r\n" % (self.parser.get_method(), self.url, version, b"".join(kept))

    def _feed(self, data: bytes) -> None:
        """Parse input; raises :class:`httptools.HttpParserError`."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as offer:
                data, self._head_again = self._head_again + data[offer.args[0] :], b""
                self.parser = HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
