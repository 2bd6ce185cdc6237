"""The identity of a worker process, and the proof that earlier workers with the same name are dead."""

import logging
import os
import re
import secrets
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.store.data_dir import FileLock

log = logging.getLogger("overload_demo.worker")

MAX_PREDECESSORS = 8
MAX_SLOTS = 1000
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
WORKER_ID = re.compile(r"[A-Za-z0-9._:-]+/[0-9a-f]{16}")


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
