"""The listening side of the API: sockets bound before anything else starts, and one uvicorn behind them.

Binding comes first, so a taken port is one clear line, and several servers on one port cannot happen by accident.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from overload_demo.errors import ConfigurationError

BACKLOG = 4096
KEEP_ALIVE_S = 30
GRACE_S = 10


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket with the kernel's full backlog; port 0 takes a free one.

    Raises :class:`ConfigurationError` if the address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # IPPROTO_TCP, not 0: asyncio sets TCP_NODELAY on accepted sockets only then
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return listener


def inherited(descriptor: int) -> socket.socket:
    """A listening socket that the parent process has bound; it outlives a killed API, and so does its queue."""
    try:
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigurationError(f"descriptor {descriptor} is no socket: {error.strerror}") from None


def url_of(listener: socket.socket) -> str:
    """The base URL of a listening socket, as a client on this machine writes it."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - only compared
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn behind a socket of ours: ``run(sockets=[listener])`` serves, :meth:`stop` ends it from any thread.

    Signals are left to the command that runs it: a notebook's Interrupt must not reach the API.
    """

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's hook, left empty."""
        yield

    def stop(self) -> None:
        """Answer what is under way, then end."""
        self.should_exit = True
