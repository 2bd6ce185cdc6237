"""The listening side of the API: where a crowd waits, and how it is let in.

Several listening sockets share one port, each with the kernel's full accept queue, so that the kernel can hold a crowd
that no process has room for; the gate lets it in bit by bit. Binding comes before anything else is started: a taken
port is one clear line, and a second server on the same port cannot happen by accident.
"""

import math
import resource
import socket
import sys
from pathlib import Path
from typing import Any

from overload_demo.errors import ConfigurationError

CROWD = 100_000  # connections the kernel is to hold at once
UNEVENNESS = 1.25  # the kernel spreads connections by a hash: room for the fullest queue


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
