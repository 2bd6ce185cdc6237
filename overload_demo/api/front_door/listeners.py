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

from overload_demo.errors import ConfigurationError
from overload_demo.http_server import listen_tcp

CROWD = 100_000  # connections the kernel is to hold at once
UNEVENNESS = 1.25  # the kernel spreads connections by a hash: room for the fullest queue


def listen(host: str, port: int, crowd: int = CROWD) -> list[socket.socket]:
    """Listening TCP sockets on one port whose accept queues hold ``crowd`` together; port 0 takes a free one.

    One socket only where the platform does not spread connections over several. Raises :class:`ConfigurationError` if
    the address cannot be had, also when another group like this one has it.
    """
    if (count := _group_size(crowd)) == 1:
        return [listen_tcp(host, port, _backlog())]
    # A plain bind proves that the port is free; sharing sockets would bind to a taken one silently.
    with listen_tcp(host, port, None) as probe:
        port = probe.getsockname()[1]
    return [listen_tcp(host, port, _backlog(), shared=True) for _ in range(count)]


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
