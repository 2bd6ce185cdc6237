"""Deployments of several shards: in one store, apart by the hash tags of their keys, or in a store each."""

from collections.abc import Iterable
from dataclasses import replace

from pydantic import SecretStr

from overload_demo.config import Settings
from overload_demo.rest import Address
from overload_demo.store.connect import Store
from overload_demo.store.data_dir import hash_tag
from tests.support.stores import Rest


def joined(addresses: Iterable[Address]) -> Store:
    """The store whose shards these are."""
    first, *others = addresses
    return replace(first, others=tuple(others)), None


def sharing(store: Store, count: int) -> Store:
    """Several shards in one server, as in a cluster."""
    return joined(replace(store[0], tag=hash_tag(shard)) for shard in range(count))


def apart(*stores: Rest) -> Store:
    """A shard in each store."""
    return joined(Address(one.url, SecretStr(one.token)) for one in stores)


def depths(settings: Settings, store: Store) -> list[int]:
    """The length of each shard's list."""
    return [
        Rest(one.url, one.token.get_secret_value()).run("LLEN", f"{one.tag}{settings.overload_key_prefix}jobs:queue")
        for one in store[0].shards
    ]
