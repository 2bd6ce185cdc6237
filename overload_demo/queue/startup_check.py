"""The check of a store before its first use: jobs must be safe there, and its keys must belong to this queue.

Only a store that would endanger data is refused. One that does not answer, or refuses the token, may do so later: the
log gives the reason now, and each 503 gives it then.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreError
from overload_demo.jobs import JOB_ID
from overload_demo.queue.protocol import TYPES, Protocol
from overload_demo.rest.address import Address, info_facts, refuse_unsafe
from overload_demo.rest.client import Command, Upstash

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0


def check_store(address: Address, settings: Settings) -> None:
    """Check a store in one read-only exchange. Blocks for at most two seconds, also inside a running event loop.

    Raises :class:`ConfigurationError` if the server evicts keys or is a cluster, or if keys with this queue's prefix
    hold other data.
    """
    with ThreadPoolExecutor(1) as thread:
        timeout_s = min(TIMEOUT_S, settings.overload_store_deadline_s)
        thread.submit(asyncio.run, _check(address, Protocol(settings.overload_key_prefix), timeout_s)).result()


async def _check(address: Address, protocol: Protocol, timeout_s: float) -> None:
    upstash, keys = Upstash(address, connections=1), [protocol.key(name) for name in TYPES]
    commands: list[Command] = [("EVAL", "return 1", 0), ("INFO",), ("LINDEX", protocol.key("queue"), 0)]
    commands += [("TYPE", key) for key in keys]
    try:
        script, info, first, *types = await upstash.pipeline(commands, repeatable=True, deadline_s=timeout_s)
    except StoreError as error:
        log.info("the store is not usable yet: %s", error)
        return
    finally:
        await upstash.aclose()
    if isinstance(script, StoreError):
        log.info("the store is not usable yet: %s", script)
    refuse_unsafe(info_facts(info if isinstance(info, str) else ""))
    _refuse_foreign(dict(zip(keys, types, strict=True)), first, protocol)


def _refuse_foreign(types: dict[str, Any], first: Any, protocol: Protocol) -> None:
    advice = "set OVERLOAD_KEY_PREFIX to an unused prefix"
    for (key, found), expected in zip(types.items(), TYPES.values(), strict=True):
        if isinstance(found, str) and found not in {"none", expected}:
            raise ConfigurationError(f"the key {key} is a {found}, not a {expected}: it holds other data; {advice}")
    # Another application's list: a worker would treat its entries as broken jobs.
    is_new = types[protocol.key("seq")] == "none"
    if is_new and isinstance(first, str) and not JOB_ID.fullmatch(first):
        raise ConfigurationError(f"the list {protocol.key('queue')} holds entries that are no job ids; {advice}")
