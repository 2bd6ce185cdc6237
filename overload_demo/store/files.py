"""Open and replace the store's files so that no link, file or directory of another user is taken for ours."""

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from overload_demo.errors import ConfigurationError

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def check(path: Path, *, may_be_link: bool = False) -> None:
    """Raise :class:`ConfigurationError` unless ``path`` is this user's and, for a directory, only this user writes it.

    A directory that others can read is accepted: its files are 0600. Of links only this user's or root's are followed,
    with ``may_be_link``. Raises OSError when ``path`` does not exist.
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
        check(path.resolve())
    elif stat.S_ISDIR(status.st_mode) and status.st_mode & WRITABLE_BY_OTHERS:
        raise _refusal(path, f"can be written by other users; once its files are known to be yours: chmod 700 {path}")


def open_file(path: Path, flags: int) -> int:
    """A descriptor of ``path`` (created 0600), never inherited and never through a symbolic link.

    Raises :class:`ConfigurationError` for a link or another user's file, and OSError for anything else.
    """
    if path.is_symlink():  # O_NOFOLLOW below also holds for a link that is made after this look
        raise _refusal(path, "is a symbolic link")
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o600)
    if sys.platform != "win32" and os.fstat(descriptor).st_uid != os.geteuid():
        os.close(descriptor)
        raise _refusal(path, "belongs to another user")
    return descriptor


def replace_file(path: Path, parts: Iterable[bytes | memoryview], *, durable: bool = False) -> None:
    """Write ``path`` (0600) at once or not at all; ``durable`` returns once it is on disk."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(open_file(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as stream:
            for part in parts:
                stream.write(part)
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
