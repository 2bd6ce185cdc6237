"""What an experiment leaves behind, and that it is removed: keys in a database, data in run folders."""

import asyncio
import contextlib
import logging
import shutil
import time
from pathlib import Path

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreError
from overload_demo.queue.maintenance import remove_all
from overload_demo.rest.address import Address
from overload_demo.rest.client import Upstash
from overload_demo.store.data_dir import TEMPORARY, DataDir
from overload_demo.store.embedded import wait_until_ended

log = logging.getLogger(__name__)

ABANDONED_AFTER_S = 60.0  # chosen: longer than a store takes from its directory to its locks


def remove_keys(settings: Settings) -> None:
    """Remove every key of a queue that has a prefix of its own at Upstash. Blocks; what cannot be done is logged."""

    async def remove() -> None:
        assert settings.upstash_redis_rest_url
        assert settings.upstash_redis_rest_token
        upstash = Upstash(Address(settings.upstash_redis_rest_url, settings.upstash_redis_rest_token))
        try:
            await remove_all(upstash, settings.overload_key_prefix)
        finally:
            await upstash.aclose()

    try:
        asyncio.run(remove())
    except StoreError as error:
        log.warning("keys that begin with %s stay in the database: %s", settings.overload_key_prefix, error)


def remove_data(data_dir: Path) -> None:
    """Remove the data of a stack once its store has ended; the store itself may have removed it before. Blocks."""
    with contextlib.suppress(ConfigurationError):  # raised when the directory is gone
        if wait_until_ended(data_dir):
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
