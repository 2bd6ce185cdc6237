"""What lies in a store's data directory, and how its small files are written.

::

    users.lock     shared by every user of the store; the store leaves once it can take it alone
    start.lock     held while somebody looks for the store or starts it
    gateway.lock   held by the gateway process as long as it lives
    redis.lock     held by the server (and, briefly, its forks) as long as it lives
    state.json     where the running gateway answers; holds its token
    token, read_only_token    the directory's own tokens, the same at each start
    store.log      what gateway and server have to say
    redis.sock     the server's socket
    appendonlydir/ the data (appendonly.aof with a server older than 7)

Lock files are never deleted: a second file of the same name would be a second lock.
"""

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from overload_demo.errors import ConfigurationError
from overload_demo.store.locks import FileLock

SERVER_LOCK, SERVER_SOCKET, LOG = "redis.lock", "redis.sock", "store.log"


class State(NamedTuple):
    """What a running gateway tells those who look for it."""

    url: str
    token: str
    pid: int
    durability: str

    def __repr__(self) -> str:
        return f"State(url={self.url!r}, token='***', pid={self.pid}, durability={self.durability!r})"


class Tokens(NamedTuple):
    """``standard`` opens everything, ``read_only`` the commands that only read one's data. Both are secrets."""

    standard: str
    read_only: str

    def __repr__(self) -> str:
        return "Tokens(standard='***', read_only='***')"


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

    def prepare(self) -> None:
        """Create the directory (0700) if it is missing; raises :class:`ConfigurationError` when that fails."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot use the data directory {self.path}: {error.strerror}") from None

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
        return os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def last_log_line(self, since: int = 0) -> str:
        """The last line logged after byte ``since``; empty when there is none."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(since, self.log.stat().st_size - 8192))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1].strip() if lines else ""

    def log_size(self) -> int:
        """Bytes in the log so far: what is logged later starts here."""
        return self.log.stat().st_size if self.log.exists() else 0

    def tokens(self) -> Tokens:
        """The directory's own tokens, made at first use; call with the gateway lock held."""
        return Tokens(self._token("token"), self._token("read_only_token"))

    def _token(self, name: str) -> str:
        file = self.path / name
        try:
            known = file.read_text().strip()
        except OSError:
            known = ""
        if known:
            return known
        token = secrets.token_urlsafe(32)
        self._replace(file, token + "\n")
        return token

    def read_state(self) -> State | None:
        """The running gateway's state; None when there is none or it cannot be read."""
        try:
            state = State(**json.loads((self.path / "state.json").read_text()))
            return state if urlsplit(state.url).port else None
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def write_state(self, state: State) -> None:
        """Publish the state at once or not at all; the file is 0600 because it holds the token."""
        self._replace(self.path / "state.json", json.dumps(state._asdict()))

    def remove_state(self) -> None:
        """Nobody shall find this gateway any more."""
        (self.path / "state.json").unlink(missing_ok=True)

    def write_problem(self) -> str:
        """Try to write 4 KB here; return the system's reason why not, e.g. a full disk, or an empty text."""
        probe = self.path / f"probe-{os.getpid()}"
        try:
            self._replace(probe, "." * 4096)
        except OSError as error:
            return error.strerror or str(error)
        finally:
            for name in (probe.name, probe.name + ".new"):
                with contextlib.suppress(OSError):
                    probe.with_name(name).unlink()
        return ""

    def _replace(self, file: Path, text: str) -> None:
        new = file.with_name(file.name + ".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        new.replace(file)
