"""The files in a data directory of the store; README.md lists them.

Lock files are never deleted: a second file of the same name would be a second lock. The directory must belong to this
user, and no other user may write to it: a listener on its sockets then runs as this user.
"""

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import SecretStr

from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.rest.address import Address, Durability
from overload_demo.store.files import FileLock, check_owner, open_file, replace_file

GATEWAY_SOCKET, SERVER_SOCKET = "gateway.sock", "redis.sock"
SERVER_LOCK, LOG, DATA, TEMPORARY = "redis.lock", "store.log", "appendonlydir", "temporary"
# Each keeps its inode while a store runs; another inode means that the file was removed or replaced.
LASTING = (".", "users.lock", "gateway.lock", SERVER_LOCK, DATA)
LOG_TAIL_BYTES = 8192


@dataclass(frozen=True)
class State:
    """What a running gateway publishes; ``notice`` lists the data that it dropped at its start."""

    token: str = field(repr=False)
    pid: int
    durability: str
    notice: str = ""


class DataDir:
    """The files of one data directory; nothing is created before :meth:`prepare`.

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
        self.log = self.path / LOG
        self._inodes: dict[str, os.stat_result] = {}

    def prepare(self) -> None:
        """Create the directory (0700) if it is missing.

        Raises :class:`ConfigurationError` when that fails, and when the directory or the data in it belongs to another
        user, is a link, or can be written by others.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_owner(self.path, may_be_link=True)
            # The server opens these by name and would follow a link.
            for data in (*self.path.glob("appendonly*"), *self.path.glob(f"{DATA}/*")):
                with contextlib.suppress(FileNotFoundError):  # a rewrite has just deleted it
                    check_owner(data)
        except OSError as error:
            raise ConfigurationError(f"cannot use the data directory {self.path}: {error.strerror}") from None

    def remember_inodes(self) -> None:
        """Note the inodes that :meth:`refuse_if_lost` compares; harmless to repeat."""
        for name in LASTING:
            if name not in self._inodes and (self.path / name).exists():
                self._inodes[name] = (self.path / name).stat()

    def refuse_if_lost(self) -> None:
        """Raise :class:`StoreUnavailableError` once the directory or a noted file was removed or replaced."""
        for name, before in self._inodes.items():
            with contextlib.suppress(OSError):
                if os.path.samestat(before, (self.path / name).stat()):
                    continue
            lost = self.path if name == "." else self.path / name
            raise StoreUnavailableError(f"{lost} was removed or replaced while in use: stopped; start again")

    def mark_temporary(self) -> None:
        """Create the directory, and let the store that runs until unused remove it at its end, tokens and data."""
        self.prepare()
        (self.path / TEMPORARY).touch()

    def remove_if_temporary(self) -> None:
        """Remove a marked directory; call with the users' lock held alone and the server ended."""
        if (self.path / TEMPORARY).exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def lock(self, name: Literal["users", "start", "gateway", "redis"]) -> FileLock:
        """One of the four locks; only holding ``gateway`` or ``redis`` proves that such a process lives."""
        return FileLock(self.path / f"{name}.lock")

    def spawn(self, command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Start a process that logs here; a Ctrl-C in this terminal does not reach it. Raises OSError."""
        log_file = open_file(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
                **options,
            )
        finally:
            os.close(log_file)

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
        url = f"unix://{self.path / GATEWAY_SOCKET}"
        return Address(url, SecretStr(state.token), cast(Durability, state.durability))

    def write_problem(self) -> str:
        """Try to write 4 KB; return the system's reason when that fails, e.g. a full disk, else an empty text."""
        probe = self.path / f"probe-{os.getpid()}"
        try:
            replace_file(probe, [b"." * 4096])
            probe.unlink()
        except OSError as error:
            return error.strerror or str(error)
        return ""
