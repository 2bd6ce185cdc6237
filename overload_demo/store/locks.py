"""Locks that the kernel frees at any kind of death of their holder.

Every promise of the embedded store ("one server per data directory", "ends with its last user") rests on them, because
a lock cannot outlive a ``kill -9`` the way a pid file does.
"""

import contextlib
import os
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from overload_demo.errors import ConfigurationError
from overload_demo.process import PARENT_ONLY
from overload_demo.store.files import open_file

POLL_S = 0.01


class FileLock:
    """One ``flock`` on one file (created 0600 when missing), shared or exclusive.

    Not inherited by children unless its descriptor is passed on purpose. Raises :class:`ConfigurationError` when the
    file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    @property
    def descriptor(self) -> int:
        """The locked file's descriptor, to hand to a child that shall hold the lock too."""
        assert self._descriptor is not None, "the lock is not held"
        return self._descriptor

    def take(self, *, shared: bool = False, timeout_s: float = 0.0) -> bool:
        """Take the lock, waiting up to ``timeout_s`` seconds; returns whether it is held now."""
        if self._descriptor is not None:
            return True
        descriptor = self._open()
        give_up_at = time.monotonic() + timeout_s
        # Polled: a blocking flock knows no time-out, and a signal-based one works in the main thread only.
        while not _try_lock(descriptor, shared=shared):
            if time.monotonic() >= give_up_at:
                os.close(descriptor)
                return False
            time.sleep(POLL_S)
        self._descriptor = descriptor
        PARENT_ONLY.add(descriptor)
        return True

    def release(self) -> None:
        """Let go of the lock, unless a child holds the same descriptor; harmless when it is not held."""
        if self._descriptor is not None:
            PARENT_ONLY.discard(self._descriptor)
            with contextlib.suppress(OSError):  # a handler may have closed it
                os.close(self._descriptor)
            self._descriptor = None

    def is_free(self) -> bool:
        """Whether nobody holds the lock; takes it exclusively for an instant."""
        taken = self.take()
        self.release()
        return taken

    def _open(self) -> int:
        if fcntl is None:
            raise ConfigurationError("the embedded store needs Linux or macOS; on Windows use WSL2 or Upstash")
        try:
            return open_file(self._path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise ConfigurationError(f"cannot use the data directory {self._path.parent}: {error.strerror}") from None


def _try_lock(descriptor: int, *, shared: bool) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    return False
