"""The files and keys of a run: its folder, and the removal of its data."""

import asyncio
import contextlib
import logging
import shutil
import time
from datetime import datetime
from pathlib import Path

import psutil

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreError
from overload_demo.queue.maintenance import remove_all
from overload_demo.rest.address import Address
from overload_demo.rest.client import Upstash
from overload_demo.store.data_dir import LEAVING_TIMEOUT_S, TEMPORARY, DataDir

log = logging.getLogger(__name__)

ABANDONED_AFTER_S = 60.0  # chosen: longer than a store takes from creating its directory to locking it


def new_run_folder(runs: Path, name: str) -> Path:
    """Make a folder in ``runs`` named after date and time. Raises :class:`ConfigurationError` if that fails."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        folder = runs / f"{stamp}-{name}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigurationError(
                f"cannot make a run folder in {runs.absolute()}: {error.strerror}; "
                "name a writable one (--output, or runs= of Stack.start), or use a copy of the course"
            ) from None
        return folder
    raise ConfigurationError(f"cannot make a run folder in {runs}: too many runs in one second")


def filesystem_of(path: Path) -> str:
    """Return the type of the file system of a path, e.g. ext4: on tmpfs a figure of durable writes means little."""
    mounts = [part for part in psutil.disk_partitions(all=True) if str(path.resolve()).startswith(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"


def tail(file: Path, lines: int) -> str:
    """Return the last lines of a log; empty without the file."""
    with contextlib.suppress(OSError):
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    return ""


def remove_keys(settings: Settings) -> None:
    """Remove every key below the stack's own prefix at Upstash. Blocks; logs a failure."""

    async def remove() -> None:
        assert settings.upstash_redis_rest_url
        assert settings.upstash_redis_rest_token
        address = Address(settings.upstash_redis_rest_url, settings.upstash_redis_rest_token)
        async with contextlib.aclosing(Upstash(address)) as upstash:
            await remove_all(upstash, settings.overload_key_prefix)

    try:
        asyncio.run(remove())
    except StoreError as error:
        prefix = settings.overload_key_prefix
        log.warning("keys with the prefix %s were not removed from the database: %s", prefix, error)


def remove_data(data_dir: Path) -> None:
    """Remove a stack's data directory once its store has ended, unless the store has done so. Blocks."""
    with contextlib.suppress(ConfigurationError):  # raised when the directory is gone
        # Until then the store's log and locks would come back.
        if DataDir(data_dir).lock("gateway").is_free(timeout_s=LEAVING_TIMEOUT_S):
            shutil.rmtree(data_dir, ignore_errors=True)


def remove_abandoned(runs: Path) -> None:
    """Remove the data, and with it the tokens, of stacks in ``runs`` whose processes were all killed."""
    for mark in runs.glob(f"*/store-*/{TEMPORARY}"):
        data_dir = DataDir(mark.parent)
        locks = data_dir.lock("users"), data_dir.lock("gateway"), data_dir.lock("redis")
        with contextlib.suppress(OSError, ConfigurationError):
            is_old = time.time() - mark.stat().st_mtime > ABANDONED_AFTER_S
            if is_old and all(lock.is_free() for lock in locks):
                shutil.rmtree(mark.parent, ignore_errors=True)
