"""Faults of a server and its files: traced and slowed system calls, a full disk, bad connections."""

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.history.machine import NotHereError, needs
from tests.history.scenario import Scenario
from tests.support.waiting import wait_until

# ---- the append-only file


def append_only_file(folder: Path) -> Path:
    """Return the append-only file of the server of ``folder``."""
    [path] = (folder / "data").glob("appendonlydir/*.incr.aof")
    return path


class Tracing:
    """``strace`` on a server: measures how much of its append-only file was durable when it ended."""

    def __init__(self, run: Scenario) -> None:
        self._log = run.folder / "strace.log"
        calls = "trace=write,fdatasync,fsync"
        self._process = _attach(run, "-y", "-s", "0", "-e", calls, "-o", str(self._log))

    def not_durable(self) -> int:
        """Return the bytes at the end of the file that a power loss removes; call after the server ended."""
        _end(self._process, within_s=5.0)
        return bytes_not_durable(self._log.read_text().splitlines())


def bytes_not_durable(lines: list[str]) -> int:
    """Count the bytes of ``*.incr.aof`` written since the last completed fsync began, in a log of ``strace -f -y``."""
    written = durable = 0
    begun: dict[str, tuple[str, int]] = {}  # by thread: the call and what had been written when it began
    for line in lines:
        thread, _, text = line.partition(" ")
        text = text.strip()
        if resumed := re.match(r"<\.\.\. (\w+) resumed>.* = (-?\d+)", text):
            call, written_before = begun.pop(thread, ("", 0))
        elif whole := re.match(r"(\w+)\(\d+<[^>]*\.incr\.aof>.*?(?: = (-?\d+)|(<unfinished))", text):
            call, written_before = whole[1], written
            if whole[3]:
                begun[thread] = call, written
                continue
            resumed = whole
        else:
            continue
        returned = int(resumed[2])
        if call == "write" and returned > 0:
            written += returned
        elif call in {"fsync", "fdatasync"} and returned == 0:
            durable = max(durable, written_before)
    return written - durable


@contextmanager
def slow_fsync(run: Scenario, delay_s: float) -> Iterator[None]:
    """Delay each fsync of the server, in the block or until it ends."""
    delay = f"inject=fdatasync,fsync:delay_enter={delay_s * 1e6:.0f}"
    process = _attach(run, "-e", "trace=fdatasync,fsync", "-e", delay, "-o", "/dev/null")
    try:
        yield
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]", within_s: float = 0.5) -> None:
    """End ``strace``: one that outlives its tracee can keep the parent from reaping it."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(within_s)
    process.kill()
    process.wait()


def _attach(run: Scenario, *options: str) -> "subprocess.Popen[bytes]":
    """Attach ``strace`` to the server of a run."""
    strace, output = needs("strace"), run.folder / "strace.output"
    with output.open("wb") as stderr:
        command = [strace, "-f", *options, "-p", str(run.store_pid("redis"))]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
    wait_until("strace reports", lambda: output.read_text())
    if "attached" not in output.read_text():
        process.wait(10)
        raise NotHereError(output.read_text().strip())
    return process


@contextmanager
def store_stopped(run: Scenario) -> Iterator[None]:
    """Kill the server; the gateway starts it again after the block only."""
    gateway, redis = run.store_pid("gateway"), run.store_pid("redis")
    os.kill(gateway, signal.SIGSTOP)  # a running gateway starts the next one at once
    try:
        os.kill(redis, signal.SIGKILL)
        wait_until("the server has closed its files", lambda: not Path(f"/proc/{redis}/fd/0").exists())
        yield
    finally:
        os.kill(gateway, signal.SIGCONT)


# ---- the disk

FILLER = "filler"


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the disk of ``folder`` in the block."""
    filler = folder / "data" / FILLER
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            for _ in itertools.count():
                file.write(bytes(4096))
        yield
    finally:
        filler.unlink()


# ---- bad connections


def send_and_hold(url: str, requests: list[bytes]) -> list[socket.socket]:
    """Connect and send each of ``requests``, without reading or closing; the caller closes the sockets."""
    host, _, port = url.removeprefix("http://").partition(":")
    links = []
    for request in requests:
        link = socket.create_connection((host, int(port)))
        link.setblocking(False)
        with contextlib.suppress(OSError):
            link.sendall(request)
        links.append(link)
    return links
