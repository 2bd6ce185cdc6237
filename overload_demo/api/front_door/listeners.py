"""The listening sockets of the API, where the kernel holds a crowd.

Several sockets share one port, each with the kernel's full accept queue, so that the kernel can hold more connections
than a process has room for. Binding comes first: a taken port is one clear error, and a second server on the same port
cannot start by accident.
"""

import math
import resource
import socket
import sys
from pathlib import Path

from overload_demo.errors import ConfigurationError
from overload_demo.http_server import listen_tcp

CROWD = 100_000  # connections that the kernel shall hold at once
UNEVENNESS = 1.25  # the kernel spreads connections by a hash: room for the fullest queue


def listen(host: str, port: int, crowd: int = CROWD) -> list[socket.socket]:
    """Return listening TCP sockets on one port whose accept queues hold ``crowd`` together; port 0 takes a free one.

    It is one socket where the platform does not spread connections over several. Raises :class:`ConfigurationError` if
    the address is not available, for example because another API has it.
    """
    if (count := _group_size(crowd)) == 1:
        return [listen_tcp(host, port, _backlog())]
    # A plain bind proves that the port is free; sockets that share a port also bind to a taken one.
    with listen_tcp(host, port, None) as probe:
        port = probe.getsockname()[1]
    return [listen_tcp(host, port, _backlog(), shared=True) for _ in range(count)]


def _backlog() -> int:
    """The longest accept queue that the kernel grants."""
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return 128


def _group_size(crowd: int) -> int:
    """Enough sockets for the crowd, at most a sixteenth of the descriptors; 1 where connections are not balanced."""
    if not sys.platform.startswith("linux"):
        return 1
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(math.ceil(crowd * UNEVENNESS / _backlog()), descriptors // 16))


def inherited(descriptors: list[int]) -> list[socket.socket]:
    """Return the sockets that the parent process has bound; they and their queues survive a killed API."""
    try:
        return [socket.socket(fileno=descriptor) for descriptor in descriptors]
    except OSError as error:
        raise ConfigurationError(f"an inherited descriptor is no socket: {error.strerror}") from None
