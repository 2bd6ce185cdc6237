"""Who a worker is: the name under which it finds its own leases again after a crash."""

import contextlib
import fcntl
import os
import re
import socket

from overload_demo.children import PARENT_ONLY
from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError


class WorkerId:
    """The stable name of this worker, held by a file lock while it lives: host and first free slot, or WORKER_ID."""

    def __init__(self, settings: Settings) -> None:
        self._given, self._dir = settings.worker_id, settings.overload_data_dir / "workers"
        self._fd: int | None = None

    def __enter__(self) -> str:
        if self._given:
            return self._given
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:60] or "host"
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        for slot in range(1000):
            fd = os.open(self._dir / f"slot-{slot}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                continue
            self._fd = fd
            PARENT_ONLY.add(fd)
            return f"{host}-{slot}"
        raise ConfigurationError("no worker slot is free on this machine: set WORKER_ID")

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            PARENT_ONLY.discard(self._fd)
            with contextlib.suppress(OSError):  # a handler may have closed it
                os.close(self._fd)
