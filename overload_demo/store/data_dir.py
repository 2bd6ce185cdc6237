"""What lies in a store's data directory, and how its small files are written.

::

    users.lock     shared by every user of the store; the store leaves once it can take it alone
    start.lock     held while somebody looks for the store or starts it
    gateway.lock   held by the gateway process as long as it lives
    redis.lock     held by the server (and, briefly, its forks) as long as it lives
    gateway.sock   the gateway's socket, for the users on this machine
    state.json     the running gateway's token, process id and durability
    store.log      what gateway and server have to say
    redis.sock     the server's socket
    temporary      where the data is not to be kept: the store removes the directory after its last user
    appendonlydir/ the data (appendonly.aof with a server older than 7)
    *.damaged-*    copies of append-only files, made before damage was removed from them

Lock files are never deleted: a second file of the same name would be a second lock. The directory must belong to this
user, and no other user may write to it: whoever listens on its sockets then runs as this user.
"""

import contextlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import NamedTuple, cast

from pydantic import SecretStr

from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.rest.address import Address, Durability
from overload_demo.store.files import check, open_file, replace_file
from overload_demo.store.locks import FileLock

GATEWAY_SOCKET, SERVER_LOCK, SERVER_SOCKET, LOG = "gateway.sock", "redis.lock", "redis.sock", "store.log"
DATA, TEMPORARY = "appendonlydir", "temporary"
# Each keeps its inode while a store runs: one that has another was removed or replaced.
LASTING = (".", "users.lock", "gateway.lock", SERVER_LOCK, DATA)


class State(NamedTuple):
    """What a running gateway tells its users; ``notice`` is what it had to drop from the data at its start."""

    token: str
    pid: int
    durability: str
    notice: str = ""

    def __repr__(self) -> str:
        return f"State(token='***', pid={self.pid}, durability={self.durability!r}, notice={self.notice!r})"


class Tokens(NamedTuple):
    """``standard`` opens everything, ``read_only`` the commands that only read one's data. Both are secrets."""

    standard: str
    read_only: str

    def __repr__(self) -> str:
        return "Tokens(standard='***', read_only='***')"


def new_tokens() -> Tokens:
    """Tokens of one store, from its start to its end."""
    return Tokens(secrets.token_urlsafe(32), secrets.token_urlsafe(32))


class DataDir:
    """The files of one data directory; nothing is touched before :meth:`prepare`.

    Raises :class:`ConfigurationError` for a path below a home or working directory that does not exist.
    """

    def __init__(self, path: Path) -> None:
        if str(path).startswith("~"):
            raise ConfigurationError(f"OVERLOAD_DATA_DIR: {path}: no such home directory; set an absolute path")
        try:
            self.path = path.absolute()
        except FileNotFoundError:
            raise ConfigurationError(
                f"OVERLOAD_DATA_DIR: {path}: the working directory no longer exists; set an absolute path"
            ) from None
        self._known: dict[str, os.stat_result] = {}

    def prepare(self) -> None:
        """Create the directory (0700) if it is missing.

        Raises :class:`ConfigurationError` when that fails, and when the directory or the data in it is another user's,
        a link, or open to the writes of others.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            check(self.path, may_be_link=True)
            # The server opens these by name and would follow a link.
            for data in (*self.path.glob("appendonly*"), *self.path.glob(f"{DATA}/*")):
                with contextlib.suppress(FileNotFoundError):  # a rewrite has just deleted it
                    check(data)
        except OSError as error:
            raise ConfigurationError(f"cannot use the data directory {self.path}: {error.strerror}") from None

    def remember(self) -> None:
        """Note which files :meth:`refuse_if_lost` has to find again; harmless to repeat."""
        for name in LASTING:
            if name not in self._known and (self.path / name).exists():
                self._known[name] = (self.path / name).stat()

    def refuse_if_lost(self) -> None:
        """Raise :class:`StoreUnavailableError` once the directory or a file noted before was removed or replaced."""
        for name, before in self._known.items():
            try:
                is_lost = not os.path.samestat(before, (self.path / name).stat())
            except OSError:
                is_lost = True
            if is_lost:
                what = self.path if name == "." else self.path / name
                raise StoreUnavailableError(f"{what} was removed or replaced while in use: stopped; start again")

    def mark_temporary(self) -> None:
        """Create the directory, and let the store that runs until unused remove it, tokens and data, at its end."""
        self.prepare()
        (self.path / TEMPORARY).touch()

    def remove_if_temporary(self) -> None:
        """Remove the directory if it is marked; call with the users' lock held alone and the server ended."""
        if (self.path / TEMPORARY).exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def users_lock(self) -> FileLock:
        """Shared by users, taken alone by the store that leaves."""
        return FileLock(self.path / "users.lock")

    def start_lock(self) -> FileLock:
        """Serializes those who look for the store or start it."""
        return FileLock(self.path / "start.lock")

    def gateway_lock(self) -> FileLock:
        """Held by the gateway process: the one truth about whether there is one."""
        return FileLock(self.path / "gateway.lock")

    def server_lock(self) -> FileLock:
        """Held by the server: as long as it is, nobody may start another on the same data."""
        return FileLock(self.path / SERVER_LOCK)

    @property
    def log(self) -> Path:
        """The log of gateway and server."""
        return self.path / LOG

    def open_log(self) -> int:
        """A descriptor appending to the log (created 0600)."""
        return open_file(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def last_log_lines(self, since: int = 0) -> list[str]:
        """What was logged after byte ``since``, of the last 8 KB."""
        try:
            with os.fdopen(open_file(self.log, os.O_RDONLY), "rb") as file:
                file.seek(max(since, self.log.stat().st_size - 8192))
                return file.read().decode(errors="replace").strip().split("\n")
        except OSError:
            return []

    def last_log_line(self, since: int = 0) -> str:
        """The last line logged after byte ``since``; empty when there is none."""
        return next((line.strip() for line in reversed(self.last_log_lines(since))), "")

    def log_size(self) -> int:
        """Bytes in the log so far: what is logged later starts here."""
        return self.log.stat().st_size if self.log.exists() else 0

    def read_state(self) -> State | None:
        """The running gateway's state; None when there is none or it cannot be read."""
        try:
            with os.fdopen(open_file(self.path / "state.json", os.O_RDONLY)) as file:
                return State(**json.load(file))
        except (OSError, ValueError, TypeError, ConfigurationError):
            return None

    def write_state(self, state: State) -> None:
        """Publish the state at once or not at all; the file is 0600 because it holds the token."""
        replace_file(self.path / "state.json", [json.dumps(state._asdict()).encode()])

    def remove_state(self) -> None:
        """Delete state and socket, and the files in which earlier versions kept lasting tokens."""
        for name in ("state.json", GATEWAY_SOCKET, "token", "read_only_token"):
            (self.path / name).unlink(missing_ok=True)

    def address(self, state: State) -> Address:
        """Where users of this machine reach the gateway: its socket in this directory."""
        url = f"unix://{self.path / GATEWAY_SOCKET}"
        return Address(url, SecretStr(state.token), cast(Durability, state.durability))

    def write_problem(self) -> str:
        """Try to write 4 KB here; return the system's reason why not, e.g. a full disk, or an empty text."""
        probe = self.path / f"probe-{os.getpid()}"
        try:
            replace_file(probe, [b"." * 4096])
            probe.unlink()
        except OSError as error:
            return error.strerror or str(error)
        return ""
