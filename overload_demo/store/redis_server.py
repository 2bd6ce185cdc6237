"""The one server process of a data directory: started, watched and ended.

Two servers on the same append-only file start without complaint and lose acknowledged writes. So the server inherits
the descriptor of an exclusive lock and holds it exactly as long as it lives: who cannot take that lock must first end
whoever has it. All calls that wait are blocking; only :meth:`RedisServer.spawn` has to run in the main thread.
"""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from overload_demo.address import Durability
from overload_demo.errors import StoreUnavailableError
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
        "aof-load-truncated": "yes",  # the torn last write of a crash was never acknowledged
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

    def __init__(self, binary: Path, data_dir: DataDir, maxmemory: str, durability: Durability) -> None:
        self._binary, self._data_dir = binary, data_dir
        self._options = server_options(maxmemory, durability)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def is_running(self) -> bool:
        """Whether our server process lives."""
        return self._process is not None and self._process.poll() is None

    def claim(self) -> FileLock:
        """The lock a new server needs, after ending whatever still holds it (an orphan, or a dead server's fork).

        Waits up to ``ORPHAN_PATIENCE_S`` for a clean end, then kills. Raises :class:`StoreUnavailableError` if even
        that does not free the lock.
        """
        lock = self._data_dir.server_lock()
        if lock.take(timeout_s=FORK_GRACE_S):
            return lock
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in _holders(self._data_dir.path):
                log.warning("ending a server left behind, pid %d", process.pid)
                with contextlib.suppress(psutil.Error):
                    end(process)
            if lock.take(timeout_s=ORPHAN_PATIENCE_S):
                return lock
        raise StoreUnavailableError(f"another process holds {SERVER_LOCK} in {self._data_dir.path} and cannot be ended")

    def spawn(self, lock: FileLock) -> None:
        """Start the server and hand it the lock; call from the main thread, with the data directory as cwd."""
        self._log_start = self._data_dir.log_size()
        log_file = self._data_dir.open_log()
        try:
            self._process = subprocess.Popen(
                [self._binary, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[lock.descriptor],
                umask=0o077,
                start_new_session=True,  # a Ctrl-C in our terminal is ours to handle: the server goes last
                preexec_fn=die_with(os.getpid()),
            )
        except OSError as error:
            raise StoreUnavailableError(f"cannot start {self._binary}: {error.strerror}") from None
        finally:
            os.close(log_file)
            lock.release()  # our copy; the server's keeps it locked
        log.info("server started, pid %d", self._process.pid)

    def last_words(self) -> str:
        """Why the server ended, as far as its log and exit code tell: one line."""
        code = self._process.poll() if self._process else None
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        said = self._data_dir.last_log_line(self._log_start)
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
