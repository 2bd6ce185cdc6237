"""Choose the store of a process: Upstash if its two variables are set, else the embedded store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from overload_demo.config import Settings
from overload_demo.queue.startup_check import check_store
from overload_demo.rest.address import Address
from overload_demo.store.embedded import EmbeddedStore

Store = tuple[Address, Callable[[], Address] | None]


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Find or start the store and hold it; yields its address and, for the embedded one, a function that refreshes it.

    Blocking. Raises :class:`ConfigurationError` if the embedded store cannot be started, or jobs are not safe there.
    """
    if settings.upstash_redis_rest_url and settings.upstash_redis_rest_token:
        address = Address(settings.upstash_redis_rest_url, settings.upstash_redis_rest_token)
        check_store(address, settings)
        yield address, None
        return
    with EmbeddedStore(settings.overload_data_dir, settings) as store:
        address = store.acquire()
        check_store(address, settings)
        yield address, store.refresh
