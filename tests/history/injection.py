"""What is done to a server and its files: traced and slowed system calls, a full disk, bad neighbours."""

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
    """The file the server of ``folder`` is appending to."""
    [path] = (folder / "data").glob("appendonlydir/*.incr.aof")
    return path


class Tracing:
    """``strace`` on a server: how much of its append-only file had been made durable when it ended."""

    def __init__(self, run: Scenario) -> None:
        self._log = run.folder / "strace.log"
        calls = "trace=write,fdatasync,fsync"
        self._process = _attach(run, "-y", "-s", "0", "-e", calls, "-o", str(self._log))

    def not_durable(self) -> int:
        """Bytes at the end of the file that a loss of power would have taken; call after the server's death."""
        _end(self._process, within_s=5.0)
        return bytes_not_durable(self._log.read_text().splitlines())


def bytes_not_durable(lines: list[str]) -> int:
    """Bytes of ``*.incr.aof`` written since the last completed fsync had begun, in a log of ``strace -f -y``."""
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
    """Each fsync of the server takes so much longer, in the block or until it dies."""
    delay = f"inject=fdatasync,fsync:delay_enter={delay_s * 1e6:.0f}"
    process = _attach(run, "-e", "trace=fdatasync,fsync", "-e", delay, "-o", "/dev/null")
    try:
        yield
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]", within_s: float = 0.5) -> None:
    """Let ``strace`` go; one that sleeps through its tracee's death would keep the dead from being buried."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(within_s)
    process.kill()
    process.wait()


def _attach(run: Scenario, *options: str) -> "subprocess.Popen[bytes]":
    """``strace`` at work on the server of a run."""
    strace, said = needs("strace"), run.folder / "strace.said"
    with said.open("wb") as stderr:
        command = [strace, "-f", *options, "-p", str(run.store_pid("redis"))]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
    wait_until("strace has said something", lambda: said.read_text())
    if "attached" not in said.read_text():
        process.wait(10)
        raise NotHereError(said.read_text().strip())
    return process


@contextmanager
def store_stopped(run: Scenario) -> Iterator[None]:
    """The server is killed, and not started again before the end of the block."""
    gateway, redis = run.store_pid("gateway"), run.store_pid("redis")
    os.kill(gateway, signal.SIGSTOP)  # it would start the next one at once
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
    """Nothing more can be written to the disk of ``folder`` in the block."""
    filler = folder / "data" / FILLER
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            for _ in itertools.count():
                file.write(bytes(4096))
        yield
    finally:
        filler.unlink()


# ---- bad neighbours


def pester(url: str, requests: list[bytes]) -> list[socket.socket]:
    """Connect and send each of ``requests``; nothing is read, nothing closed. Whoever calls closes them."""
    host, _, port = url.removeprefix("http://").partition(":")
    links = []
    for request in requests:
        link = socket.create_connection((host, int(port)))
        link.setblocking(False)
        with contextlib.suppress(OSError):
            link.sendall(request)
        links.append(link)
    return links
