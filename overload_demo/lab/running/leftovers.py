"""What an experiment leaves in somebody's database, and that it is removed."""

import asyncio
import logging

from overload_demo.address import Address
from overload_demo.config import Settings
from overload_demo.errors import StoreError
from overload_demo.queue.admin import remove_all
from overload_demo.upstash import Upstash

log = logging.getLogger(__name__)


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
