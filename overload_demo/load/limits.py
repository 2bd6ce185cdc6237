"""How many sockets, cores and bytes this machine or its container allows, and how the load stays below that.

Two limits look like the server's fault: the descriptors of a process (EMFILE) and the ephemeral ports between two
addresses (EADDRNOTAVAIL, about 28,000 on Linux). Already above half of the ports, connect() takes milliseconds
(measured: seconds of schedule lag at 15,000 sockets). So each load process has a socket cap and source addresses of its
own, 127.0.0.1 to 127.0.0.4, 127.0.1.1 ..., where the platform has them (Linux does, macOS has the first only).
A plain bind would reserve a port for all destinations, hence IP_BIND_ADDRESS_NO_PORT.
"""

import contextlib
import itertools
import math
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from overload_demo.errors import ConfigurationError
from overload_demo.load.plan import MAX_PROCESSES, LoadPlan, Shape

try:
    import resource
except ImportError:  # Windows sends no load, but reads recorded runs
    resource = None  # type: ignore[assignment]

ENOUGH_DESCRIPTORS = 65_536
PORT_SHARE = 0.9  # chosen: the rest is for other programs on this machine
SOURCES_PER_PROCESS = 4
RATE_PER_PROCESS_PER_S = 5000.0  # half of what one process was measured to send
IP_BIND_ADDRESS_NO_PORT = 24  # Linux; the socket module has the name from Python 3.12 on

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def descriptor_limit() -> int:
    """Return the descriptor limit to which a load process may raise its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft, ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_DESCRIPTORS))


def raise_descriptor_limit() -> int:
    """Raise the soft descriptor limit of this process to :func:`descriptor_limit`; return the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptor_limit()
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some values below its stated hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def socket_cap(descriptors: int) -> int:
    """Return the sockets a process may have open at once; the rest is for its files and for sockets still closing."""
    return max(1, descriptors - max(64, descriptors // 20))


def port_cap(sources: int) -> int:
    """Return the connections that may be open from so many source addresses to one destination."""
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        first, last = 49_152, 65_535  # reserved by IANA, used by macOS
    return int(sources * (last - first + 1) * PORT_SHARE)


def usable_cores(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float:
    """Return the cores this process may use: its CPU affinity, or a container's CPU quota if that is lower."""
    quotas = [float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)]
    for folder in _cgroups("cpu", root, own):
        bounds = _numbers(folder / "cpu.max")
        if quota := _numbers(folder / "cpu.cfs_quota_us"):  # version 1
            bounds = quota + _numbers(folder / "cpu.cfs_period_us")
        if bounds:
            quotas.append(bounds[0] / bounds[1])
    return min(quotas)


def container_memory_bytes(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int | None:
    """Return how much memory a container's limit leaves, bytes; None without a limit.

    Cached file contents that the kernel can drop (``inactive_file``) count as free, as outside a container.
    """
    left = []
    for folder in _cgroups("memory", root, own):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            if bounds := _numbers(folder / limit):
                left.append(bounds[0] - sum(_numbers(folder / used)) + _droppable(folder / "memory.stat"))
    return max(0, int(min(left))) if left else None


def processes_for(plan: LoadPlan, descriptors: int) -> int:
    """Choose the number of load processes: enough for the sockets open at once and for the rate.

    An open loop may come to hold ``rate_per_s * timeout_s`` sockets when a server stalls. This is not provided for:
    requests beyond the cap are dropped and counted; set ``processes`` where it matters.
    Raises :class:`ConfigurationError` when the given processes cannot hold the given connections.
    """
    cap = min(socket_cap(descriptors), port_cap(1))
    if plan.processes is not None:
        if (plan.connections or 0) > plan.processes * cap:
            raise ConfigurationError(f"{plan.processes} processes hold at most {plan.processes * cap:,} connections")
        return plan.processes
    wanted = plan.rate_per_s / RATE_PER_PROCESS_PER_S
    if plan.is_closed or plan.shape is Shape.AT_ONCE:
        wanted = (plan.connections or plan.requests) / cap
    return max(1, min(math.ceil(wanted), MAX_PROCESSES, plan.requests))


def source_addresses(url: str, processes: int) -> list[list[str]]:
    """Return the source addresses of each process, empty where the kernel chooses. Probes them by binding."""
    if urlsplit(url).hostname == "127.0.0.1":
        chosen = [[f"127.0.{number}.{1 + host}" for host in range(SOURCES_PER_PROCESS)] for number in range(processes)]
        with contextlib.suppress(OSError):
            for address in itertools.chain(*chosen):
                _bound_socket(address, socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP).close()
            return chosen
    return [[] for _ in range(processes)]


def socket_factory(addresses: Sequence[str]) -> Callable[[Any], socket.socket] | None:
    """Return an aiohttp socket factory that binds to ``addresses`` in turn; None without addresses."""
    if not addresses:
        return None
    turns = itertools.cycle(addresses)
    return lambda info: _bound_socket(next(turns), *info[:3])


def _cgroups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """Yield the control groups of this process, versions 1 and 2, and their parents: the lowest limit applies."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        inside = Path(path.lstrip("/"))
        # Inside a container the path may be the host's. Then only the root exists, which is the container's group.
        yield from (root / (controller if controllers else "") / one for one in (inside, *inside.parents))


def _numbers(file: Path) -> list[float]:
    """Return the numbers in a kernel file; empty without the file or a limit (``max``, -1)."""
    words = _read(file).split()
    return [] if not words or words[0] in ("max", "-1") else [float(word) for word in words]


def _droppable(stat: Path) -> float:
    found = re.findall(r"^(?:total_)?inactive_file (\d+)$", _read(stat), re.MULTILINE)
    return max(map(float, found), default=0.0)  # version 1 has two lines: the group alone, and with its children


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _bound_socket(address: str, family: int, kind: int, protocol: int) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        bound.bind((address, 0))
    except OSError:
        bound.close()
        raise
    return bound
