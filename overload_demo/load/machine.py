"""This machine or its container: what it is, and how many sockets, cores and bytes it allows.

Two limits look like the server's fault: the descriptors of a process (EMFILE) and the ephemeral ports between two
addresses (EADDRNOTAVAIL, about 28,000 on Linux). Already above half of the ports, connect() takes milliseconds
(measured: seconds of schedule lag at 15,000 sockets). So each load process has a socket cap and source addresses of its
own, 127.0.0.1 to 127.0.0.4, 127.0.1.1 ..., where the platform has them (Linux does, macOS has the first only).
"""

import contextlib
import math
import os
import platform
import re
import socket
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from overload_demo.process import descriptor_limit

PORT_SHARE = 0.9  # chosen: the rest is for other programs on this machine
SOURCES_PER_PROCESS = 4
IP_BIND_ADDRESS_NO_PORT = 24  # Linux; the socket module has the name from Python 3.12 on

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class Environment(BaseModel, frozen=True):
    """The machine and the versions a figure was measured with."""

    processor: str
    system: str
    cores: int
    python: str
    versions: dict[str, str]
    descriptor_limit: int

    @classmethod
    def here(cls) -> Self:
        """Describe this machine."""
        found = re.search(r"^model name\s*:\s*(.+)", _read(Path("/proc/cpuinfo")), re.MULTILINE)
        return cls(
            processor=found[1].strip() if found else platform.processor() or platform.machine(),
            system=f"{platform.system()} {platform.release()}",
            cores=math.ceil(usable_cores()),
            python=platform.python_version(),
            versions={name: version(name) for name in ("overload-demo", "aiohttp", "numpy")},
            descriptor_limit=descriptor_limit(),
        )

    def is_like(self, other: "Environment") -> bool:
        """Whether rates measured in both are comparable: equal processor, cores, system and Python."""
        return all(getattr(self, name) == getattr(other, name) for name in ("processor", "cores", "system", "python"))


def socket_cap(descriptors: int) -> int:
    """Return the sockets a process may have open at once; the rest is for its files and for sockets still closing."""
    return max(1, descriptors - max(64, descriptors // 20))


def port_cap(sources: int) -> int:
    """Return the connections that may be open from so many source addresses to one destination."""
    # Without the file: the range that IANA reserves and macOS uses.
    words = _read(Path("/proc/sys/net/ipv4/ip_local_port_range")).split() or ["49152", "65535"]
    return int(sources * (int(words[1]) - int(words[0]) + 1) * PORT_SHARE)


def source_addresses(process: int) -> list[str]:
    """Return the addresses from which a load process, numbered from 0, connects to 127.0.0.1; empty without them."""
    addresses = [f"127.0.{process}.{1 + host}" for host in range(SOURCES_PER_PROCESS)]
    with contextlib.suppress(OSError):
        for address in addresses:
            bound_socket(address, socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP).close()
        return addresses
    return []


def bound_socket(address: str, family: int, kind: int, protocol: int) -> socket.socket:
    """Return a socket that connects from ``address``; a plain bind would reserve a port for all destinations."""
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        bound.bind((address, 0))
    except OSError:
        bound.close()
        raise
    return bound


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
        # version 1 has two such lines: the group alone, and with its children
        droppable = re.findall(r"(?m)^(?:total_)?inactive_file (\d+)$", _read(folder / "memory.stat"))
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            if bounds := _numbers(folder / limit):
                left.append(bounds[0] - sum(_numbers(folder / used)) + max(map(float, droppable), default=0.0))
    return max(0, int(min(left))) if left else None


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


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
