"""Two guards of a worker's process: the lock file that proves its identity, and the watchdog.

A call that holds the interpreter's lock (a regular expression that backtracks, one huge sum) stops all threads of its
process and Python's signal handlers. The watchdog is a forked process. Shared memory holds which job runs since when; a
pipe carries the stop signals and closes with the worker.
"""

import logging
import mmap
import os
import re
import secrets
import select
import signal
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.process import PARENT_ONLY, STOP_SIGNALS
from overload_demo.store.data_dir import FileLock

log = logging.getLogger("overload_demo.worker")

MAX_PREDECESSORS = 8
MAX_SLOTS = 1000
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
WORKER_ID = re.compile(r"[A-Za-z0-9._:-]+/[0-9a-f]{16}")
LONGEST_WAIT_S = 3600.0
MARGIN_S = 2.0  # a worker that is merely busy ends itself before that
_RUNNING = struct.Struct("d64s")  # start of the running job, CLOCK_MONOTONIC, 0 without one; its id


@dataclass(frozen=True)
class Identity:
    """``worker_id`` is unique to one run of a worker; ``predecessors`` are ids of workers proved dead.

    ``name`` is for logs: WORKER_ID, or host and slot. Two live workers may share a name, never a worker id.
    """

    name: str
    worker_id: str
    predecessors: tuple[str, ...] = ()


@contextmanager
def locked_identity(settings: Settings) -> Iterator[Identity]:
    """Yield a new :class:`Identity`, and hold its lock file in the data directory during the block.

    The file records the ids of its last holders. A live one would still hold the lock, so their leases may be taken
    back at once. A record counts only in the file it was written to and under the same kernel: a lock proves nothing
    about a copied file, or about another machine on a network file system. Without a usable directory there is no lock
    and no proof, and leases of earlier workers expire.
    Raises :class:`ConfigurationError` if a live worker has the same WORKER_ID in the same data directory.
    """
    name = settings.worker_id or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:60] or "host"
    folder = settings.overload_data_dir / "workers"
    lock, slot = _take_lock(folder, settings.worker_id)
    if lock and settings.worker_id is None:
        name += f"-{slot}"
    worker_id = f"{name}/{secrets.token_hex(8)}"
    if lock is None:
        log.warning("no lock file in %s: leases of a worker that died return when they expire", folder)
        yield Identity(name, worker_id)
        return
    try:
        yield Identity(name, worker_id, _succeed(lock.descriptor, worker_id))
    finally:
        lock.release()


def _take_lock(folder: Path, given: str | None) -> tuple[FileLock | None, int]:
    """Take the first free lock and return it with its slot; a given name has one slot."""
    files = [f"id-{given}.lock"] if given else [f"slot-{slot}.lock" for slot in range(MAX_SLOTS)]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for slot, file in enumerate(files):
            if (lock := FileLock(folder / file)).take():
                return lock, slot
    except (OSError, ConfigurationError):  # not writable, or a file system without locks
        return None, 0
    if given is None:
        raise ConfigurationError(f"no worker slot is free in {folder}: set WORKER_ID")
    message = f"WORKER_ID: a live worker with the data directory {folder.parent} has the name {given!r}"
    raise ConfigurationError(f"{message}; choose another name or unset it")


def _succeed(descriptor: int, worker_id: str) -> tuple[str, ...]:
    """Record a worker id in the locked file; returns the ids of its last holders, which the lock proves dead."""
    try:
        file = os.fstat(descriptor)
        here = f"{_boot()} {file.st_dev}:{file.st_ino} "
        lines = os.pread(descriptor, 65_536, 0).decode(errors="replace").splitlines()[-MAX_PREDECESSORS:]
        text = "".join(f"{line}\n" for line in [*lines, here + worker_id]).encode()
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))
    except OSError as error:
        log.warning("cannot write the worker's lock file: %s", error.strerror)
        return ()
    found = [line.removeprefix(here) for line in lines if line.startswith(here)]
    return tuple(one for one in found if WORKER_ID.fullmatch(one))


def _boot() -> str:
    """The kernel's boot id; where there is none (macOS), host name and network address."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return f"{socket.gethostname()}:{uuid.getnode():x}"


class Watchdog:
    """Ends this process by SIGKILL when a job exceeds a limit by 2 s, which only a blocked interpreter allows.

    The limits are WORKER_JOB_TIMEOUT_S and, from a stop signal on, WORKER_GRACE_S. Create it in the main thread, before
    any other thread starts; the second process ends with this one.
    """

    def __init__(self, settings: Settings) -> None:
        self._limit_s, self._grace_s = settings.worker_job_timeout_s, settings.worker_grace_s
        self._memory = mmap.mmap(-1, _RUNNING.size)
        self._handlers: dict[signal.Signals, Any] = {}
        self._worker = os.getpid()
        reader, self._writer = os.pipe()
        if (middle := os.fork()) == 0:
            # Forked twice: a handler that waits for all children of this process must not wait for the watchdog.
            if os.fork() == 0:
                self._watch(reader)
            os._exit(0)
        os.waitpid(middle, 0)
        os.close(reader)
        os.set_blocking(self._writer, False)
        PARENT_ONLY.add(self._writer)

    def guard_signals(self) -> None:
        """Send the number of each signal to the pipe, and restore signal handlers that a job changes."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def job_begins(self, job_id: str) -> None:
        """Start the time limit of a job, and end that of the one before."""
        _RUNNING.pack_into(self._memory, 0, time.monotonic(), job_id.encode())

    def batch_ended(self, *, is_stopping: bool) -> None:
        """End the time limit, and restore the stop signals' handlers unless a stop has begun."""
        _RUNNING.pack_into(self._memory, 0, 0.0, b"")
        changed = [number for number, wanted in self._handlers.items() if signal.getsignal(number) is not wanted]
        if is_stopping or not changed:
            return
        for number in changed:
            signal.signal(number, self._handlers[number])
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        names = " and ".join(number.name for number in changed)
        log.warning("the handler has replaced the signal handler of %s: restored", names)

    # ---- in the second process

    def _watch(self, reader: int) -> NoReturn:
        try:
            os.close(self._writer)
            for number in STOP_SIGNALS:  # meant for the worker
                signal.signal(number, signal.SIG_IGN)
            self._wait(reader)
        finally:
            os._exit(0)

    def _wait(self, reader: int) -> None:
        """Return when the worker has ended or was killed."""
        stop_at, stopped_job = 0.0, 0.0
        while True:
            now = time.monotonic()
            since, job_id = _RUNNING.unpack_from(self._memory)
            end_at, limit = (since or now) + self._limit_s, "WORKER_JOB_TIMEOUT_S"
            if since and since == stopped_job and stop_at < end_at:
                end_at, limit = stop_at, "WORKER_GRACE_S"
            if since and now > end_at + MARGIN_S:
                name = job_id.rstrip(b"\0").decode()
                message = "%s exceeds %s and blocks the interpreter: the worker is killed and the job interrupted"
                log.error(message, name, limit, extra={"job_id": name})
                os.kill(self._worker, signal.SIGKILL)
                return
            if select.select([reader], [], [], min(end_at + MARGIN_S - now + 0.01, LONGEST_WAIT_S))[0]:
                signals = os.read(reader, 64)
                if not signals:
                    return
                now, stopped_job = time.monotonic(), _RUNNING.unpack_from(self._memory)[0]
                for _ in STOP_SIGNALS & set(signals):
                    # a second signal ends the worker at once, as it does where the interpreter can handle it
                    stop_at = now - MARGIN_S if stop_at else now + self._grace_s
