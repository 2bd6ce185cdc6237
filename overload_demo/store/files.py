"""The store's files and locks: no link and no file of another user is ever opened in their place.

The kernel releases a lock when its holder ends for any reason. "One server per data directory" and "ends with its last
user" rest on that; a pid file would outlive a ``kill -9``.
"""

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from overload_demo.errors import ConfigurationError
from overload_demo.process import PARENT_ONLY

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
LOCK_POLL_S = 0.01


def check_owner(path: Path, *, may_be_link: bool = False) -> None:
    """Raise :class:`ConfigurationError` unless this user owns ``path`` and no other user can write to a directory.

    A directory that others can read is accepted: its files are 0600. A link is refused; with ``may_be_link``, a link of
    this user or root is followed. Raises OSError when ``path`` does not exist.
    """
    if sys.platform == "win32":
        return
    status, user = path.lstat(), os.geteuid()
    is_link = stat.S_ISLNK(status.st_mode)
    if status.st_uid != user and not (is_link and status.st_uid == 0):
        raise _refusal(path, f"belongs to user {status.st_uid}, not to user {user} of this process")
    if is_link and not may_be_link:
        raise _refusal(path, "is a symbolic link")
    if is_link:
        check_owner(path.resolve())
    elif stat.S_ISDIR(status.st_mode) and status.st_mode & WRITABLE_BY_OTHERS:
        raise _refusal(path, f"can be written by other users; once its files are known to be yours: chmod 700 {path}")


def open_file(path: Path, flags: int) -> int:
    """Open ``path`` (created 0600), never through a symbolic link; child processes do not inherit the descriptor.

    Raises :class:`ConfigurationError` for a link or another user's file, and OSError for anything else.
    """
    if path.is_symlink():  # O_NOFOLLOW also refuses a link that is made after this check
        raise _refusal(path, "is a symbolic link")
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o600)
    if sys.platform != "win32" and os.fstat(descriptor).st_uid != os.geteuid():
        os.close(descriptor)
        raise _refusal(path, "belongs to another user")
    return descriptor


def replace_file(path: Path, parts: Iterable[bytes | memoryview], *, durable: bool = False) -> None:
    """Write ``path`` (0600) atomically; ``durable`` returns once it is on disk."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(open_file(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as stream:
            stream.writelines(parts)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    if durable:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _refusal(path: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(f"cannot use the data directory: {path} {reason}")


class FileLock:
    """One ``flock`` on one file (created 0600 when missing), shared or exclusive.

    A child process holds the lock too once it is given ``descriptor``. Raises :class:`ConfigurationError` when the file
    cannot be opened.
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
        """The descriptor of the locked file."""
        assert self._descriptor is not None, "the lock is not held"
        return self._descriptor

    def take(self, *, shared: bool = False, timeout_s: float = 0.0) -> bool:
        """Take the lock, waiting up to ``timeout_s`` seconds; returns whether it is held now."""
        if self._descriptor is not None:
            return True
        if fcntl is None:
            raise ConfigurationError("the embedded store needs Linux or macOS; on Windows use WSL2 or Upstash")
        try:
            descriptor = open_file(self._path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise ConfigurationError(f"cannot use the data directory {self._path.parent}: {error.strerror}") from None
        how, give_up_at = fcntl.LOCK_SH if shared else fcntl.LOCK_EX, time.monotonic() + timeout_s
        # Polled: a blocking flock has no timeout, and a signal-based one works in the main thread only.
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                break
            if time.monotonic() >= give_up_at:
                os.close(descriptor)
                return False
            time.sleep(LOCK_POLL_S)
        self._descriptor = descriptor
        PARENT_ONLY.add(descriptor)
        return True

    def release(self) -> None:
        """Close the file, which frees the lock unless a child holds the same descriptor; harmless to repeat."""
        if self._descriptor is not None:
            PARENT_ONLY.discard(self._descriptor)
            with contextlib.suppress(OSError):  # a job handler may have closed it
                os.close(self._descriptor)
            self._descriptor = None

    def is_free(self) -> bool:
        """Whether the lock can be had; takes it exclusively for an instant."""
        is_taken = self.take()
        self.release()
        return is_taken
