"""The limits of this machine that affect a measurement, and what they mean."""

import importlib.util
import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import psutil

from overload_demo.errors import ConfigurationError
from overload_demo.lab import html_table
from overload_demo.load.machine import container_memory_bytes, port_cap, socket_cap, usable_cores
from overload_demo.process import descriptor_limit
from overload_demo.store.redis_server import find_server

Limit = Literal["descriptors", "ports", "memory"]

NOTEBOOK_PACKAGES = ("jupyterlab", "ipykernel", "ipywidgets", "nbclient")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
# Measured: uvicorn grows by 10 to 25 KB a request in flight. Kernel buffers and the client's side are not included.
BYTES_A_SOCKET = 25_000


@dataclass(frozen=True)
class Preflight:
    """What one process may use on this machine; displayed as a table in a notebook.

    ``memory_bytes`` is the free memory, or what a container's limit leaves if that is less. ``descriptors`` is the
    limit a process may set for itself (``descriptors_now`` is that of this process), ``ports`` the connections allowed
    to one server address. ``proxies`` are names of variables that are set, never their values.
    """

    python: str
    system: str
    cores: float
    memory_bytes: int
    descriptors_now: int
    descriptors: int
    ports: int
    filesystem: str
    store_server: str
    proxies: tuple[str, ...]
    missing_packages: tuple[str, ...]

    @classmethod
    def here(cls, runs: Path = Path("runs")) -> Self:
        """Inspect this machine and environment; ``runs`` will contain the run folders and need not exist yet."""
        free, container = int(psutil.virtual_memory().available), container_memory_bytes()
        try:
            server = find_server(None).name
        except ConfigurationError as error:
            server = str(error)
        return cls(
            python=platform.python_version(),
            system=f"{platform.system()} {platform.release()}",
            cores=usable_cores(),
            memory_bytes=free if container is None else min(free, container),
            descriptors_now=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            descriptors=descriptor_limit(),
            ports=port_cap(1),
            filesystem=filesystem_of(runs),
            store_server=server,
            proxies=tuple(sorted(name for name in os.environ if name.lower() in PROXY_VARIABLES and os.environ[name])),
            missing_packages=tuple(name for name in NOTEBOOK_PACKAGES if importlib.util.find_spec(name) is None),
        )

    def sockets_by_limit(self) -> dict[Limit, int]:
        """Return the sockets one process can hold to one server address, for each limit alone."""
        memory = self.memory_bytes // BYTES_A_SOCKET
        return {"descriptors": socket_cap(self.descriptors), "ports": self.ports, "memory": memory}

    def first_limit(self) -> Limit:
        """Return the limit that a growing number of sockets in one process reaches first."""
        sockets = self.sockets_by_limit()
        return min(sockets, key=lambda limit: sockets[limit])

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the rows of the table: what, how much, and what it means."""
        sockets, missing = self.sockets_by_limit(), ", ".join(self.missing_packages)
        alone = "shared with the load generator: expect lower rates and a generator-bound verdict"
        descriptors = f"{sockets['descriptors']:,} sockets a process; the rest is for files and the interpreter"
        slow, memory = "a 202 waits for it", "memory, not a disk: durable writes look faster than they are"
        remedy = "pip install -e '.[notebooks]'" if missing else "the extra [notebooks] is installed"
        return [
            ("Python", self.python, f"on {self.system}"),
            (
                "cores",
                f"{self.cores:g}",
                alone if self.cores <= 1 else "load generator, API, worker and store share them",
            ),
            ("free memory", f"{self.memory_bytes / 1e9:,.1f} GB", f"{sockets['memory']:,} sockets at 25 KB each"),
            ("descriptor limit", f"{self.descriptors:,} (now {self.descriptors_now:,})", descriptors),
            ("ephemeral ports", f"{self.ports:,}", "connections from one address to one server"),
            ("file system of runs", self.filesystem, memory if self.filesystem == "tmpfs" else slow),
            ("store", self.store_server, "the server that keeps the queue on disk"),
            ("proxy variables", ", ".join(self.proxies) or "none", "ignored: all traffic stays on this machine"),
            ("notebook packages", f"missing: {missing}" if missing else "complete", remedy),
        ]

    def _repr_html_(self) -> str:
        return html_table(self.rows(), ("", "here", "which means"))

    def __repr__(self) -> str:
        width = max(len(value) for _, value, _ in self.rows())
        return "\n".join(f"{what:<20} {value:<{width}}  {meaning}" for what, value, meaning in self.rows())


def filesystem_of(path: Path) -> str:
    """Return the type of the file system of a path, e.g. ext4: on tmpfs a figure of durable writes means little."""
    mounts = [part for part in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"
