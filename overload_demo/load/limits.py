"""How many sockets this machine allows, and how the load stays below that.

Two limits end a careless load test, and both look like the server's fault: the descriptors of a process (EMFILE) and
the ephemeral ports between two addresses (EADDRNOTAVAIL, about 28,000 on Linux). The second hurts long before its end:
connect() looks for a free port of one parity first, one after the other, so above half of the ports it takes the kernel
milliseconds a call (measured here: seconds of schedule lag at 15,000 sockets). So each load process knows its cap, and
sends from a few addresses of its own, 127.0.0.1 to 127.0.0.4, 127.0.1.1 ..., where the platform has them (Linux does,
macOS has the first only). Spreading *sources* lets the server stay on 127.0.0.1; it needs IP_BIND_ADDRESS_NO_PORT,
because a plain bind would take a port for all destinations.
"""

import contextlib
import itertools
import math
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from overload_demo.errors import ConfigurationError
from overload_demo.load.plan import MAX_PROCESSES, LoadPlan
from overload_demo.load.schedule import Shape

try:
    import resource
except ImportError:  # Windows: no load is fired there, but recorded runs are read
    resource = None  # type: ignore[assignment]

ENOUGH_DESCRIPTORS = 65_536
PORT_SHARE = 0.9  # the rest is for everybody else on this machine
SOURCES_PER_PROCESS = 4
RATE_PER_PROCESS_PER_S = 5000.0  # half of what one process was measured to carry
IP_BIND_ADDRESS_NO_PORT = 24  # Linux; the socket module has the name from Python 3.12 on

SocketFactory = Callable[[Any], socket.socket]


def descriptor_limit() -> int:
    """Return how many descriptors a process of ours may raise its limit to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft, ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_DESCRIPTORS))


def raise_descriptor_limit() -> int:
    """Raise this process's soft descriptor limit as far as it may and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptor_limit()
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some values below its stated hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def socket_cap(descriptors: int) -> int:
    """How many sockets a process may have open at once under this limit.

    A reserve is kept for the interpreter, its files, and sockets that are closed but not gone yet.
    """
    return max(1, descriptors - max(64, descriptors // 20))


def port_cap(sources: int) -> int:
    """How many connections may be open from so many addresses of one's own to one destination."""
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        first, last = 49_152, 65_535  # what IANA reserves and macOS uses
    return int(sources * (last - first + 1) * PORT_SHARE)


def processes_for(plan: LoadPlan, descriptors: int) -> int:
    """Choose the number of load processes: enough for the sockets open at once and for the rate.

    An open loop may come to hold ``rate_per_s * timeout_s`` sockets when a server stalls; that is not provided for
    (requests beyond the cap are dropped and counted), set ``processes`` where it matters.
    Raises :class:`ConfigurationError` when the processes asked for cannot hold the connections asked for.
    """
    cap = min(socket_cap(descriptors), port_cap(1))
    if plan.processes is not None:
        if (plan.connections or 0) > plan.processes * cap:
            raise ConfigurationError(f"{plan.processes} processes hold at most {plan.processes * cap:,} connections")
        return plan.processes
    if plan.connections is not None:
        wanted = math.ceil(plan.connections / cap)
    elif plan.shape is Shape.AT_ONCE:
        wanted = math.ceil(plan.requests / cap)
    else:
        wanted = math.ceil(plan.rate_per_s / RATE_PER_PROCESS_PER_S)
    return max(1, min(wanted, MAX_PROCESSES, plan.requests))


def source_addresses(url: str, processes: int) -> list[list[str]]:
    """Return addresses to send from for each process, empty where the kernel is to choose. Probes by binding."""
    kernel_chooses: list[list[str]] = [[] for _ in range(processes)]
    if urlsplit(url).hostname != "127.0.0.1":
        return kernel_chooses
    chosen = [[f"127.0.{number}.{1 + host}" for host in range(SOURCES_PER_PROCESS)] for number in range(processes)]
    try:
        for address in itertools.chain(*chosen):
            _bound_socket(address, socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP).close()
    except OSError:
        return kernel_chooses
    return chosen


def socket_factory(addresses: Sequence[str]) -> SocketFactory | None:
    """Return what makes aiohttp's sockets come from ``addresses`` in turn; None for none."""
    if not addresses:
        return None
    turns = itertools.cycle(addresses)

    def make(info: Any) -> socket.socket:
        family, kind, protocol, *_ = info
        return _bound_socket(next(turns), family, kind, protocol)

    return make


def _bound_socket(address: str, family: int, kind: int, protocol: int) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        bound.bind((address, 0))
    except OSError:
        bound.close()
        raise
    return bound
