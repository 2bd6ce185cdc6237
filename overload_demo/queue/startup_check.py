"""What a store is asked before it is used: whether jobs are safe there, and whether its keys are ours.

Only what would endanger data is refused. A store that does not answer now, or not with this token, may do so later:
then a line of the log says why, and so does every 503.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreError
from overload_demo.jobs import JOB_ID
from overload_demo.queue.protocol import TYPES, Protocol
from overload_demo.rest.address import Address
from overload_demo.rest.client import Command, Upstash
from overload_demo.rest.server_facts import facts, refuse_unsafe

log = logging.getLogger(__name__)

PATIENCE_S = 2.0


def vet(address: Address, settings: Settings) -> None:
    """Look at a store, in one exchange that changes nothing. Blocks for two seconds at most, also in an event loop.

    Raises :class:`ConfigurationError` when it evicts keys or is a cluster, and when the keys behind ``prefix`` hold
    somebody else's data.
    """
    with ThreadPoolExecutor(1) as thread:
        patience_s = min(PATIENCE_S, settings.overload_store_deadline_s)
        thread.submit(asyncio.run, _vet(address, Protocol(settings.overload_key_prefix), patience_s)).result()


async def _vet(address: Address, protocol: Protocol, patience_s: float) -> None:
    upstash, keys = Upstash(address, connections=1), [protocol.key(name) for name in TYPES]
    look: list[Command] = [("EVAL", "return 1", 0), ("INFO",), ("LINDEX", protocol.key("queue"), 0)]
    look += [("TYPE", key) for key in keys]
    try:
        script, info, first, *types = await upstash.pipeline(look, repeatable=True, deadline_s=patience_s)
    except StoreError as error:
        log.info("the store does not help yet: %s", error)
        return
    finally:
        await upstash.aclose()
    if isinstance(script, StoreError):
        log.info("the store does not help yet: %s", script)
    refuse_unsafe(facts(info if isinstance(info, str) else ""))
    _refuse_foreign(dict(zip(keys, types, strict=True)), first, protocol)


def _refuse_foreign(types: dict[str, Any], first: Any, protocol: Protocol) -> None:
    advice = "set OVERLOAD_KEY_PREFIX to one that nobody uses"
    for (key, found), expected in zip(types.items(), TYPES.values(), strict=True):
        if isinstance(found, str) and found not in {"none", expected}:
            raise ConfigurationError(f"the key {key} is a {found} and not our {expected}, so it is not ours: {advice}")
    # A list of somebody else's, whose entries a worker would take for broken jobs.
    is_new = types[protocol.key("seq")] == "none"
    if is_new and isinstance(first, str) and not JOB_ID.fullmatch(first):
        raise ConfigurationError(f"the list {protocol.key('queue')} holds entries that are not ours: {advice}")
