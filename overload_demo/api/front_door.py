"""The listening side of the API: where a crowd waits, and how it is let in.

Several listening sockets share one port, each with the kernel's full accept queue, so that the kernel can hold a crowd
that no process has room for; the gate lets it in bit by bit. Binding comes before anything else is started: a taken
port is one clear line, and a second server on the same port cannot happen by accident.
"""

import math
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from overload_demo.api.gate import Gate, GatedProtocol, connection_cap
from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError

CROWD = 100_000  # connections the kernel is to hold at once
UNEVENNESS = 1.25  # the kernel spreads connections by a hash: room for the fullest queue
KEEP_ALIVE_S = 30


def listen(host: str, port: int, crowd: int = CROWD) -> list[socket.socket]:
    """Listening TCP sockets on one port whose accept queues hold ``crowd`` together; port 0 takes a free one.

    One socket only where the platform does not spread connections over several. Raises :class:`ConfigurationError` if
    the address cannot be had, also when another group like this one has it.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        first = _bound(family, address)
        if (count := _group_size(crowd)) == 1:
            first.listen(_backlog())
            return [first]
        # The plain bind has proved that the port is free; sharing sockets would have bound to a taken one silently.
        address = first.getsockname()
        first.close()
        group = [_bound(family, address, shared=True) for _ in range(count)]
        for listener in group:
            listener.listen(_backlog())
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return group


def _bound(family: int, address: Any, *, shared: bool = False) -> socket.socket:
    # IPPROTO_TCP, not 0: asyncio sets TCP_NODELAY on accepted sockets only then
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _backlog() -> int:
    """The longest accept queue the kernel grants."""
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return 128


def _group_size(crowd: int) -> int:
    """Enough sockets for the crowd, but no more than a sixteenth of the descriptors; 1 where they are not balanced."""
    if not sys.platform.startswith("linux"):
        return 1
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(math.ceil(crowd * UNEVENNESS / _backlog()), descriptors // 16))


def inherited(descriptors: list[int]) -> list[socket.socket]:
    """Listening sockets that the parent process has bound; they outlive a killed API, and so do their queues."""
    try:
        return [socket.socket(fileno=descriptor) for descriptor in descriptors]
    except OSError as error:
        raise ConfigurationError(f"an inherited descriptor is no socket: {error.strerror}") from None


def url_of(listeners: list[socket.socket]) -> str:
    """The base URL of listening sockets, as a client on this machine writes it."""
    host, port = listeners[0].getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - only compared
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn behind sockets of ours and a gate: ``run(sockets=[...])`` serves, :meth:`stop` ends it from any thread.

    With ``drains`` set, a stop first lets in who is waiting in the kernel, for up to ``overload_grace_s``: closing the
    sockets would reset them. Without, somebody else holds the sockets open. Signals are left to the command that runs
    it: a notebook's Interrupt must not reach the API.
    """

    def __init__(self, app: FastAPI, settings: Settings, *, drains: bool = False) -> None:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.overload_grace_s),
        )
        super().__init__(config)
        self._settings, self._drains = settings, drains
        self._gate: Gate | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's hook, with the gate in the place of its own accepting."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            return
        listeners = sockets or []
        cap = connection_cap(self._settings.overload_max_connections, len(listeners))
        gate = self._gate = Gate(listeners, cap, self._settings.overload_request_patience_s)
        state, app_state = self.server_state, self.lifespan.state
        gate.open(lambda: GatedProtocol(gate, config=self.config, server_state=state, app_state=app_state))
        self.servers = []
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's hook: accept no more, then let it answer what is inside."""
        if self._gate is not None:
            if self._drains:
                await self._gate.drain(self._settings.overload_grace_s)
            self._gate.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's hook, left empty."""
        yield

    def stop(self) -> None:
        """Answer what is under way, then end."""
        self.should_exit = True
