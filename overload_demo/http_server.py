"""What the HTTP servers of API, store and live page share: listening, one write per response, no signal handlers."""

import asyncio
import errno
import math
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from overload_demo.errors import ConfigurationError

CROWD = 100_000  # connections that the kernel shall hold for the API at once
UNEVENNESS = 1.25  # the kernel spreads connections by a hash: room for the fullest queue


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
    """

    status = b""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._unwritten: list[bytes] = []
        self.is_closing = transport.is_closing  # called often

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

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
