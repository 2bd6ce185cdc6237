"""The environment of a row's stack: set up before it starts, with variables for its processes."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hiredis

from overload_demo.store.redis_server import find_server
from tests.history.machine import NotHereError, needs
from tests.support.running import free_port
from tests.support.waiting import wait_until


@dataclass
class Environment:
    """``variables`` go to every process of the stack."""

    variables: dict[str, object] = field(default_factory=dict)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Start processes inside the environment in the block."""
        yield

    def describe(self) -> str:
        """Return the note for the record, after the run."""
        return ""


@contextmanager
def plain(_: Path) -> Iterator[Environment]:
    """Add nothing to the folder."""
    yield Environment()


# ---- a small disk


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Environment]:
    """Mount a file system in memory as the data directory of ``folder``."""
    data = folder / "data"
    data.mkdir(mode=0o700)
    options = f"size={megabytes}m,mode=0700"
    done = subprocess.run([needs("mount"), "-t", "tmpfs", "-o", options, "none", data], capture_output=True, text=True)
    if done.returncode:
        raise NotHereError(f"mount: {done.stderr.strip()}")
    try:
        yield Environment()
    finally:
        subprocess.run(["umount", "--lazy", data], check=True)


# ---- little memory

MEMORY = Path("/sys/fs/cgroup/memory")


@dataclass
class MemoryLimit(Environment):
    """A control group: the processes inside share so much memory, page cache of their files included."""

    path: Path = MEMORY

    @contextmanager
    def inside(self) -> Iterator[None]:
        (self.path / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (self.path.parent / "cgroup.procs").write_text(str(os.getpid()))

    def describe(self) -> str:
        """Return the peak memory."""
        peak = int((self.path / "memory.max_usage_in_bytes").read_text())
        return f"peak {peak >> 20} MB"


@contextmanager
def little_memory(_: Path, megabytes: int) -> Iterator[MemoryLimit]:
    """Create a memory control group (version 1) of so many MB."""
    path = MEMORY / f"overload-demo-{os.getpid()}"
    try:
        path.mkdir()
        (path / "memory.limit_in_bytes").write_text(str(megabytes << 20))
    except OSError as error:
        raise NotHereError(f"memory control group: {error.strerror}") from None
    try:
        yield MemoryLimit(path=path)
    finally:
        wait_until(
            "no process is left in the control group", lambda: not (path / "cgroup.procs").read_text(), timeout_s=60.0
        )
        path.rmdir()


# ---- a primary with a replica


class Pair(Environment):
    """A primary and its asynchronous replica; a failover makes the replica the primary, at the same port.

    ``options`` are further ones of the primary.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._port, self._generation = folder, free_port(), 0
        super().__init__({"OVERLOAD_REDIS_URL": url_at(self._port)})
        self.primary = self._start(self._port, "primary", *options)
        self.replica = self._start_replica()

    def cut_off_the_replica(self) -> None:
        """Stop the replica: it receives nothing from now on."""
        self.replica.send_signal(signal.SIGSTOP)

    def ask(self, *command: str, replica: bool = False) -> Any:
        """The reply of one of the servers to a command, asked past the gateway."""
        with socket.create_connection(("127.0.0.1", self._replica_port if replica else self._port), 10) as link:
            link.sendall(hiredis.pack_command(command))
            reader = hiredis.Reader(encoding="utf-8")
            while (reply := reader.gets()) is False:
                reader.feed(link.recv(65_536))
            return reply

    def promote(self) -> str:
        """Make the replica a primary at its own port, as an operator would; returns its URL."""
        assert self.ask("REPLICAOF", "NO", "ONE", replica=True) == "OK"
        return url_at(self._replica_port)

    def fail_over(self) -> None:
        """End the primary; only what the replica received is left."""
        for server in (self.primary, self.replica):
            server.kill()
            server.wait()
        self.primary = self._start(self._port, f"replica-{self._generation}")
        self._generation += 1
        self.replica = self._start_replica()

    def close(self) -> None:
        """End both servers."""
        for server in (self.primary, self.replica):
            server.kill()
            server.wait()

    def _start_replica(self) -> "subprocess.Popen[bytes]":
        self._replica_port, name = free_port(), f"replica-{self._generation}"
        server = self._start(self._replica_port, name, "--replicaof", f"127.0.0.1 {self._port}")
        log = self._folder / f"replica-{self._generation}" / "log"
        wait_until("the replica follows", lambda: log.exists() and "Finished with success" in log.read_text())
        return server

    def _start(self, port: int, name: str, *more: str) -> "subprocess.Popen[bytes]":
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        usual = ["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"]
        command = [str(find_server(None)), "--port", str(port), "--dir", str(folder), "--logfile", "log", *usual]
        return subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, cwd=folder)


def url_at(port: int) -> str:
    """The URL of a server on this machine."""
    return f"redis://127.0.0.1:{port}"


@contextmanager
def primary_and_replica(folder: Path, *options: str) -> Iterator[Pair]:
    """Start both, the replica up to date."""
    pair = Pair(folder, *options)
    try:
        yield pair
    finally:
        pair.close()


# ---- a shifted clock

CLOCK = Path(__file__).with_name("clock.c")


@dataclass
class Clock(Environment):
    """The wall clock of the processes is ahead by :meth:`set` seconds."""

    offset: Path = Path()

    def set(self, seconds: int) -> None:
        """Let the clock jump to ``seconds`` ahead of the true time."""
        with self.offset.open("r+b", buffering=0) as file:
            file.write(seconds.to_bytes(8, "little", signed=True))


@contextmanager
def shifted_clock(folder: Path) -> Iterator[Clock]:
    """Compile a library that replaces C's clock functions, for preloading."""
    library, offset = folder / "clock.so", folder / "clock.offset"
    subprocess.run([needs("cc"), "-shared", "-fPIC", "-O1", "-o", library, CLOCK, "-ldl"], check=True)
    offset.write_bytes(bytes(8))
    yield Clock({"LD_PRELOAD": library, "CLOCK_OFFSET": offset}, offset)


# ---- an older version

OLDER = "bffa57a"  # before deadlines, cancel and owners


@dataclass
class Versions(Environment):
    """An older version of the package beside this one."""

    older: Path = Path()


@contextmanager
def two_versions(folder: Path) -> Iterator[Versions]:
    """Extract the older version from git."""
    package = folder / "older"
    package.mkdir()
    root = Path(__file__).parents[2]
    archive = subprocess.run([needs("git"), "archive", OLDER, "overload_demo"], cwd=root, capture_output=True)
    if archive.returncode:
        raise NotHereError("needs the history of this repository")
    subprocess.run([needs("tar"), "-x", "-C", str(package)], input=archive.stdout, check=True)
    yield Versions(older=package)
