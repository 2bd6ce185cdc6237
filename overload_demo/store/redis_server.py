"""The one server process of a data directory: started, watched and ended.

Two servers on the same append-only file start without complaint and lose acknowledged writes. So the server inherits
the descriptor of an exclusive lock and holds it exactly as long as it lives: who cannot take that lock must first end
whoever has it. All calls that wait are blocking; only :meth:`RedisServer.spawn` has to run in the main thread.
"""

import contextlib
import ctypes
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from overload_demo.errors import StoreUnavailableError
from overload_demo.rest.address import Durability
from overload_demo.store import append_only
from overload_demo.store.data_dir import LOG, SERVER_LOCK, SERVER_SOCKET, DataDir
from overload_demo.store.locks import FileLock

log = logging.getLogger(__name__)

END_TIMEOUT_S = 8.0
ORPHAN_PATIENCE_S = 2.0  # short, because somebody waits; harmless, because what was acknowledged is on disk
FORK_GRACE_S = 0.2
_PR_SET_PDEATHSIG = 1
# What the server would let a script do, and the gateway refuses. The category also covers what only newer servers have
# (COMMANDLOG); those given back cannot be called in scripts. MIGRATE would even connect to any host and take the data
# there. An append-only file that holds one of these is still loaded.
NOT_EVEN_IN_SCRIPTS = (
    *("-@admin", "+client", "+config", "+monitor", "+shutdown", "-memory", "+memory|usage"),
    *("-flushall", "-migrate", "-swapdb", "-slowlog", "-cluster", "-pfdebug", "-restore-asking"),
)


def server_options(maxmemory: str, durability: Durability) -> list[str]:
    """The server's configuration; the old option names (ziplist) are all that 6.2 knows, and newer ones accept them."""
    options = {
        # Reached through a socket in its directory only. The path is relative: absolute ones end at 107 bytes.
        "port": "0",
        "unixsocket": SERVER_SOCKET,
        "unixsocketperm": "600",
        "databases": "1",
        # With "always" a reply means the write is on disk. No snapshots: they would only double the work.
        "appendonly": "yes",
        "appendfsync": durability,
        "no-appendfsync-on-rewrite": "no",
        "aof-load-truncated": "no",  # "yes" drops all that follows a damaged length; see RedisServer.mend
        "auto-aof-rewrite-percentage": "100",
        "auto-aof-rewrite-min-size": "64mb",
        "save": "",
        # Full means full: a write is refused, nothing is thrown away.
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
    words = [text for name, value in options.items() for text in (f"--{name}", value)]
    rights = ["default", "on", "nopass", "~*", "&*", "+@all", *NOT_EVEN_IN_SCRIPTS]
    return [*words, "--user", *rights]


class RedisServer:
    """The server of one data directory, which must be the working directory of this process."""

    def __init__(
        self, binary: Path, data_dir: DataDir, maxmemory: str, durability: Durability, *, repair: bool = False
    ) -> None:
        self._binary, self._data_dir, self._repair = binary, data_dir, repair
        self.notices: list[str] = []  # what was dropped from the data
        self._options = server_options(maxmemory, durability)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def is_running(self) -> bool:
        """Whether our server process lives."""
        return self._process is not None and self._process.poll() is None

    def claim(self) -> FileLock:
        """The lock a new server needs, after ending whatever still holds it (an orphan, or a dead server's fork).

        A server whose lock file, or whole directory, was removed holds a lock that excludes nothing: it is ended too.
        Waits up to ``ORPHAN_PATIENCE_S`` for a clean end, then kills. Raises :class:`StoreUnavailableError` if even
        that does not free the lock, and when the data directory is no longer the one this store was started on.
        """
        lock = self._data_dir.server_lock()
        is_taken = lock.take(timeout_s=FORK_GRACE_S)
        for end in (psutil.Process.terminate, psutil.Process.kill):
            self._refuse_if_lost(lock)
            holders = _holders(self._data_dir.path)
            if is_taken and not holders:
                return lock
            for process in holders:
                log.warning("ending a server left behind, pid %d", process.pid)
                with contextlib.suppress(psutil.Error):
                    end(process)
            psutil.wait_procs(holders, ORPHAN_PATIENCE_S)
            is_taken = lock.take(timeout_s=FORK_GRACE_S)
        if is_taken and not _holders(self._data_dir.path):
            return lock
        lock.release()
        raise StoreUnavailableError(f"another process holds {SERVER_LOCK} in {self._data_dir.path} and cannot be ended")

    def _refuse_if_lost(self, lock: FileLock) -> None:
        try:
            self._data_dir.refuse_if_lost()
        except StoreUnavailableError:
            lock.release()
            raise

    def mend(self) -> bool:
        """After a server has refused its data: drop an incomplete end, keeping a copy; returns whether it did.

        Damage with commands behind it is dropped only with ``repair``. Else, and when no copy can be kept, raises
        :class:`StoreUnavailableError`.
        """
        if self._process is None or self._process.returncode <= 0:
            return False
        said = re.search(r"nknown command '(.+?)'[, ]", self._data_dir.last_log_line(self._log_start))
        lock = self.claim()
        try:
            damage = append_only.find_damage(self._data_dir.path, said[1] if said else "")
            if damage is None:
                return False
            self._mend(damage)
        except OSError as error:
            raise StoreUnavailableError(f"cannot keep a copy of the damaged data: {error.strerror}") from None
        finally:
            lock.release()
        return True

    def _mend(self, damage: append_only.Damage) -> None:
        name, copies = damage.file.name, self._data_dir.path
        if damage.has_more and not self._repair:
            copy = append_only.keep_copy(damage.file, copies)
            raise StoreUnavailableError(
                f"{name} is damaged at byte {damage.gaps[0].start:,}, with commands behind it; a copy is {copy}. "
                f"This drops the {damage.size:,} damaged bytes and keeps the rest: "
                f"python -m overload_demo.store --repair --data-dir {shlex.quote(str(copies))}"
            )
        copy = append_only.drop(damage, copies)
        what = "damaged commands" if damage.has_more else "an incomplete command at the end"
        notice = f"{name}: dropped {what}, {damage.size:,} bytes (commands: {damage.commands:,}); a copy is {copy}"
        log.warning("%s", notice)
        self.notices.append(notice)

    def spawn(self, lock: FileLock) -> None:
        """Start the server and hand it the lock; call from the main thread, with the data directory as cwd."""
        self._log_start = self._data_dir.log_size()
        log_file = self._data_dir.open_log()
        handed = os.dup(lock.descriptor)  # a child that runs preexec_fn drops the lock's own descriptor, see children
        try:
            self._process = subprocess.Popen(
                [self._binary, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[handed],
                umask=0o077,
                start_new_session=True,  # a Ctrl-C in our terminal is ours to handle: the server goes last
                preexec_fn=die_with(os.getpid()),
            )
        except OSError as error:
            raise StoreUnavailableError(f"cannot start {self._binary}: {error.strerror}") from None
        finally:
            os.close(log_file)
            os.close(handed)
            lock.release()  # our copy; the server's keeps it locked
        log.info("server started, pid %d", self._process.pid)

    def last_words(self) -> str:
        """Why the server ended, as far as its log and exit code tell: one line."""
        code = self._process.poll() if self._process else None
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        lines = self._data_dir.last_log_lines(self._log_start)
        said = next((line for line in lines if "RDB checksum" in line), lines[-1].strip() if lines else "")
        said = re.sub(r"^\d+:\w+ .*?\d\d:\d\d\S* \S ", "", said)  # process id and time of the server's own line
        return f"the server ended ({how})" + (f": {said}" if said else "")

    def wait_if_dying(self, timeout_s: float = 1.0) -> bool:
        """Give a server that closed its connections a moment to be gone; returns whether it is."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        return not self.is_running

    def end(self) -> None:
        """End the server cleanly, killing it after ``END_TIMEOUT_S`` seconds; harmless when it is not running."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("the server did not end within %g s and is killed", END_TIMEOUT_S)
            self._process.kill()
            self._process.wait()


def _holders(data_dir: Path) -> list[psutil.Process]:
    """The processes that live in ``data_dir`` and have its server lock open, other than this one."""
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
        if os.getppid() != parent:  # it died before the kernel was told
            os._exit(1)

    return tie_to_parent
