"""A data directory of the store: its files, its locks and the state of its gateway; README.md lists the files.

The kernel releases a lock when its holder ends for any reason; a pid file would outlive a ``kill -9``. Lock files are
never deleted: a second file of the same name would be a second lock. No link and no file of another user is opened, and
no other user may write to the directory: a listener on its sockets then runs as this user.
"""

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import SecretStr

from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.process import PARENT_ONLY
from overload_demo.rest import Address, Durability

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

GATEWAY_SOCKET, SERVER_SOCKET = "gateway.sock", "redis.sock"
SERVER_LOCK, LOG, DATA, TEMPORARY = "redis.lock", "store.log", "appendonlydir", "temporary"
CLUSTER_CONFIG, NODE = "cluster.conf", "node-"
# Each keeps its inode while a store runs; another inode means that the file was removed or replaced.
LASTING = (".", "users.lock", "gateway.lock", SERVER_LOCK, DATA)
LOG_TAIL_BYTES = 8192
LOCK_POLL_S = 0.01
LEAVING_TIMEOUT_S = 30.0  # longer than a store takes to end after its last user's release


@dataclass(frozen=True)
class State:
    """What a running gateway publishes; ``notice`` has a line for each warning of its start.

    ``shards`` is their number in front of a cluster: shard n has the token ``n.TOKEN`` and the hash tag of
    :func:`hash_tag`. 0 in front of one server. ``behind`` is :func:`without_secrets` of ``OVERLOAD_REDIS_URL``.
    """

    token: str = field(repr=False)
    pid: int
    durability: str
    notice: str = ""
    shards: int = 0
    behind: str = ""


def without_secrets(url: SecretStr | None) -> str:
    """Return a server's URL without user and passwords; empty without a URL."""
    text = re.sub(r"(?<=[?&])\w*password=[^&]*", "", url.get_secret_value() if url else "")
    return re.sub(r"(?<=unix://)[^/?#]*@|(?<=[^x]://).*@", "", text)  # also of a password with a slash in it


def hash_tag(shard: int) -> str:
    """The start of every key of a shard in a cluster: keys with the same braces lie in one slot."""
    return f"{{q{shard}}}:"


class FileLock:
    """One ``flock`` on one file (created 0600 when missing); a child that is given ``descriptor`` holds it too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = -1

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self.descriptor >= 0

    def take(self, *, shared: bool = False, timeout_s: float = 0.0) -> bool:
        """Take the lock, waiting up to ``timeout_s`` seconds; returns whether it is held now.

        Raises :class:`ConfigurationError` when the file cannot be opened.
        """
        if self.is_held:
            return True
        how, give_up_at = fcntl.LOCK_SH if shared else fcntl.LOCK_EX, time.monotonic() + timeout_s
        # Polled: a blocking flock has no timeout, and a signal-based one works in the main thread only.
        while True:
            try:
                descriptor = open_file(self._path, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                reason = f"cannot use the data directory {self._path.parent}: {error.strerror}"
                raise ConfigurationError(reason) from None
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), self._path.stat()):  # a removed file excludes nothing
                    break
            os.close(descriptor)
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(LOCK_POLL_S)
        self.descriptor = descriptor
        PARENT_ONLY.add(descriptor)
        return True

    def require(self, problem: str, *, shared: bool = False, timeout_s: float = 0.0) -> None:
        """Take the lock, or raise :class:`StoreUnavailableError` with ``problem`` and the directory."""
        if not self.take(shared=shared, timeout_s=timeout_s):
            raise StoreUnavailableError(f"{problem} {self._path.parent}")

    def share(self) -> None:
        """Take the users' lock as one of them, or raise :class:`StoreUnavailableError`."""
        problem = f"timed out after {LEAVING_TIMEOUT_S:g} s waiting for the end of the store that shuts down on"
        self.require(problem, shared=True, timeout_s=LEAVING_TIMEOUT_S)

    def release(self) -> None:
        """Close the file, which frees the lock unless a child holds the same descriptor; harmless to repeat."""
        if self.is_held:
            PARENT_ONLY.discard(self.descriptor)
            with contextlib.suppress(OSError):  # a job handler may have closed it
                os.close(self.descriptor)
            self.descriptor = -1

    def is_free(self, *, timeout_s: float = 0.0) -> bool:
        """Whether the lock can be had within ``timeout_s`` seconds; takes it exclusively for an instant."""
        is_taken = self.take(timeout_s=timeout_s)
        self.release()
        return is_taken


class DataDir:
    """The files of one data directory; nothing is created before :meth:`prepare`.

    Raises :class:`ConfigurationError` on Windows, and for a path below a home or working directory that does not exist.
    """

    def __init__(self, path: Path) -> None:
        if fcntl is None:
            raise ConfigurationError("the embedded store needs Linux or macOS; on Windows use WSL2 or Upstash")
        if str(path).startswith("~"):
            raise ConfigurationError(f"OVERLOAD_DATA_DIR: {path}: no such home directory; set an absolute path")
        try:
            self.path = path.absolute()
        except FileNotFoundError:
            raise ConfigurationError(
                f"OVERLOAD_DATA_DIR: {path}: the working directory no longer exists; set an absolute path"
            ) from None
        self.log = self.path / LOG
        self._inodes: dict[str, os.stat_result] = {}

    def prepare(self) -> None:
        """Create the directory (0700) if it is missing.

        Raises :class:`ConfigurationError` when that fails, or another user could write to the directory or its data.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_owner(self.path, may_be_link=True)
            # The server opens these by name and would follow a link.
            for data in (*self.path.glob("appendonly*"), *self.path.glob(f"{DATA}/*"), *self.path.glob("nodes.conf")):
                with contextlib.suppress(FileNotFoundError):  # a rewrite has just deleted it
                    check_owner(data)
        except OSError as error:
            raise ConfigurationError(f"cannot use the data directory {self.path}: {error.strerror}") from None

    def refuse_other_nodes(self, wanted: int) -> None:
        """Raise :class:`ConfigurationError` if the data is that of another number of servers: it would be hidden."""
        config, single = self.path / CLUSTER_CONFIG, (self.path / DATA, self.path / "appendonly.aof")
        stated = re.match(r"# (\d+) nodes", config.read_text(errors="replace")) if config.exists() else None
        held = int(stated[1]) if stated else len(list(self.path.glob(f"{NODE}*"))) or int(any(map(Path.exists, single)))
        if held not in {0, wanted}:
            raise ConfigurationError(
                f"OVERLOAD_NODES is {wanted}, but the data in {self.path} is that of {held}: "
                f"set OVERLOAD_NODES={held} (or --nodes), or use another OVERLOAD_DATA_DIR"
            )

    def remember_inodes(self, names: Iterable[str] = LASTING) -> None:
        """Note the inodes that :meth:`refuse_if_lost` compares; harmless to repeat."""
        for name in names:
            if name not in self._inodes and (self.path / name).exists():
                self._inodes[name] = (self.path / name).stat()

    def refuse_if_lost(self) -> None:
        """Raise :class:`StoreUnavailableError` once the directory or a noted file was removed or replaced."""
        for name, before in self._inodes.items():
            file = self.path / name
            with contextlib.suppress(OSError):
                if os.path.samestat(before, file.stat()):
                    continue
            raise StoreUnavailableError(f"{file} was removed or replaced while in use: stopped; start again")

    def mark_temporary(self) -> None:
        """Create the directory, and let the store that runs until unused remove it at its end, tokens and data."""
        self.prepare()
        (self.path / TEMPORARY).touch()

    def remove_if_temporary(self) -> None:
        """Remove a marked directory; call with the users' lock held alone and the server ended."""
        if (self.path / TEMPORARY).exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def lock(self, name: Literal["users", "start", "gateway", "redis"]) -> FileLock:
        """One of the four locks; only holding ``gateway`` or ``redis`` proves that such a process runs."""
        return FileLock(self.path / f"{name}.lock")

    def spawn(self, command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Start a process that logs here; a Ctrl-C in this terminal does not reach it. Raises OSError."""
        with os.fdopen(open_file(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as log:
            options |= {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
            return subprocess.Popen(command, **options)

    def log_lines(self, since: int = 0) -> list[str]:
        """The lines logged after byte ``since``, of the last 8 KB; one empty line when there are none."""
        try:
            with os.fdopen(open_file(self.log, os.O_RDONLY), "rb") as file:
                file.seek(max(since, self.log_size() - LOG_TAIL_BYTES))
                return file.read().decode(errors="replace").strip().split("\n")
        except OSError:
            return [""]

    def log_size(self) -> int:
        """Bytes in the log so far."""
        return self.log.stat().st_size if self.log.exists() else 0

    def read_state(self) -> State | None:
        """The running gateway's state; None when there is none or it cannot be read."""
        try:
            with os.fdopen(open_file(self.path / "state.json", os.O_RDONLY)) as file:
                return State(**json.load(file))
        except (OSError, ValueError, TypeError, ConfigurationError):
            return None

    def write_state(self, state: State) -> None:
        """Publish the state atomically; the file is 0600 because it holds the token."""
        replace_file(self.path / "state.json", [json.dumps(asdict(state)).encode()])

    def remove_state(self) -> None:
        """Delete state and socket, and the token files of earlier versions."""
        for name in ("state.json", GATEWAY_SOCKET, "token", "read_only_token"):
            (self.path / name).unlink(missing_ok=True)

    def address(self, state: State) -> Address:
        """The address of the gateway for users of this machine: its socket in this directory."""
        url, durability = f"unix://{self.path / GATEWAY_SOCKET}", cast(Durability, state.durability)
        own = [(f"{shard}.{state.token}", hash_tag(shard)) for shard in range(state.shards)] or [(state.token, "")]
        first, *others = (Address(url, SecretStr(token), durability, tag) for token, tag in own)
        return replace(first, others=tuple(others))

    def write_problem(self) -> str:
        """Try to write 4 KB; return the system's reason when that fails, e.g. a full disk, else an empty text."""
        probe = self.path / f"probe-{os.getpid()}"
        try:
            replace_file(probe, [b"." * 4096])
            probe.unlink()
        except OSError as error:
            return error.strerror or str(error)
        return ""


def check_owner(path: Path, *, may_be_link: bool = False) -> None:
    """Raise :class:`ConfigurationError` unless this user owns ``path`` and no other user can write to a directory.

    Others may read it: its files are 0600. A link is refused, or followed if it is this user's or root's and
    ``may_be_link``.
    """
    status, user = path.lstat(), os.geteuid()
    is_link = stat.S_ISLNK(status.st_mode)
    if status.st_uid != user and not (is_link and status.st_uid == 0):
        raise _refusal(path, f"belongs to user {status.st_uid}, not to user {user} of this process")
    if is_link and not may_be_link:
        raise _refusal(path, "is a symbolic link")
    if is_link:
        check_owner(path.resolve())
    elif stat.S_ISDIR(status.st_mode) and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _refusal(path, f"can be written by other users; once its files are known to be yours: chmod 700 {path}")


def open_file(path: Path, flags: int) -> int:
    """Open ``path`` (created 0600), never through a symbolic link; child processes do not inherit the descriptor.

    Raises :class:`ConfigurationError` for a link or another user's file, and OSError for anything else.
    """
    if path.is_symlink():  # O_NOFOLLOW also refuses a link that is made after this check
        raise _refusal(path, "is a symbolic link")
    descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    if os.fstat(descriptor).st_uid != os.geteuid():
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
