"""Checks before a store is used: jobs must be safe in each shard, and its keys must be those of this shard's queue.

Several shards are told apart by a key of each, ``jobs:shard``: "DEPLOYMENT_ID SHARD SHARDS". A single one has none.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, NamedTuple

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreError
from overload_demo.jobs import JOB_ID, shard_of
from overload_demo.queue.protocol import TYPES, Protocol
from overload_demo.rest import Address, Command, info_facts, refuse_unsafe
from overload_demo.rest.client import Upstash

CHECK_TIMEOUT_S = 2.0
WAIT_MS = 500  # chosen: a replica that follows confirms in one or two

log = logging.getLogger(__name__)


class Marker(NamedTuple):
    """The content of ``jobs:shard``: the database is shard number ``shard`` of ``shards`` of a deployment."""

    deployment: str
    shard: int
    shards: int

    @classmethod
    def read(cls, text: Any) -> "Marker | None":
        """The marker from its stored text; None if there is none."""
        found = re.fullmatch(r"([0-9a-f]+) (\d{1,4}) (\d{1,4})", text) if isinstance(text, str) else None
        return cls(found[1], int(found[2]), int(found[3])) if found else None

    def refuse_unless(self, expected: "Marker") -> None:
        """Raise :class:`ConfigurationError` unless this is the expected shard, of no more shards than expected."""
        problem, place = "", f"shard {expected.shard}"
        if self.shards > expected.shards:
            problem = f"the store belongs to a deployment of {self.shards} shards, but {expected.shards} are configured"
            problem += ": give all of them, else the jobs of the others are hidden"
        elif self.deployment != expected.deployment:
            problem = f"{place} belongs to another deployment: give its own database, or an empty one"
        elif self.shard != expected.shard:
            problem = f"{place} is shard {self.shard} of this deployment already"
            problem += ": is the same database given twice, or in another order than before?"
        if problem:
            raise ConfigurationError(problem)


class Findings(NamedTuple):
    """What a shard holds: its marker, and ids of some of its jobs."""

    marker: Marker | None
    job_ids: list[str]


def check_store(address: Address, settings: Settings) -> None:
    """Check all shards of a store; mark each of several as what it is, and change nothing else.

    Blocks for a few seconds at most, also inside a running event loop. Raises :class:`ConfigurationError` if a server
    evicts keys or is a cluster, if keys with this queue's prefix hold other data, or if a shard is another one than
    before. A shard that does not answer, or refuses the token, may do so later: the log gives the reason now, and each
    503 gives it then.
    """
    depth, count = settings.overload_max_queue_depth, len(address.shards)
    if 0 < depth < count:
        raise ConfigurationError(f"OVERLOAD_MAX_QUEUE_DEPTH: {depth} is less than one job for each of {count} shards")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _check(address.shards, settings)).result()


async def _check(addresses: Sequence[Address], settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(aclosing(Upstash(one, connections=1))) for one in addresses]
        found = await asyncio.gather(*(_look_at(shard, client, settings) for shard, client in enumerate(clients)))
        deployment = _deployment_of(found)
        if len(clients) == 1 or not deployment:
            return
        written: list[tuple[Upstash, str]] = []
        try:  # New ones first: a refused start leaves all markers as they were.
            for shard in sorted(range(len(found)), key=lambda shard: bool(getattr(found[shard], "marker", None))):
                one, client, expected = found[shard], clients[shard], Marker(deployment, shard, len(found))
                if one and one.marker != expected:
                    marker = await _mark(client, Protocol.of(client, settings), expected, written)
                    if shard == 0:  # of two processes that start a new deployment at the same time, one makes its id
                        deployment = marker.deployment if marker else ""
                    if not deployment:
                        return
                    if marker:
                        marker.refuse_unless(expected._replace(deployment=deployment))
        except ConfigurationError:
            with suppress(StoreError):
                for client, key in written:
                    await client.command("DEL", key)
            raise


def _deployment_of(found: Sequence[Findings | None]) -> str:
    """Return the id of the deployment that the shards belong to; "" if shard 0, which has it, does not answer.

    Raises :class:`ConfigurationError` if they do not belong together in this order.
    """
    markers = {shard: one.marker for shard, one in enumerate(found) if one and one.marker}
    deployment = next((marker.deployment for marker in markers.values()), "")
    for shard, marker in markers.items():
        marker.refuse_unless(Marker(deployment, shard, len(found)))
    if markers and found[0] and 0 not in markers:
        raise ConfigurationError(f"shard {min(markers)} belongs to a deployment, but shard 0 does not: another order?")
    for shard, one in enumerate(found):
        for job_id in one.job_ids if one else ():
            if shard_of(job_id) != shard:
                raise ConfigurationError(
                    f"shard {shard} holds a job of shard {shard_of(job_id)}: give all databases, in the order as before"
                )
    return deployment or (secrets.token_hex(8) if found[0] else "")


async def _mark(upstash: Upstash, protocol: Protocol, wanted: Marker, written: list[Any]) -> Marker | None:
    """Mark a shard unless it is marked, and note a new mark; returns its marker, None if it cannot be written."""
    key, text = protocol.key("shard"), " ".join(map(str, wanted))
    try:
        set_reply, stored = await upstash.pipeline([("SET", key, text, "NX"), ("GET", key)], repeatable=True)
        marker = Marker.read(stored)
        written += [(upstash, key)] if set_reply == "OK" else []
        if marker and marker[:2] == wanted[:2] and marker.shards < wanted.shards:
            await upstash.command("SET", key, text, repeatable=True)
    except StoreError as error:
        set_reply, marker = error, None
    if isinstance(set_reply, StoreError):
        log.info("shard %d is not usable yet: %s", wanted.shard, set_reply)
    return marker


async def _look_at(shard: int, upstash: Upstash, settings: Settings) -> Findings | None:
    """Check one shard in one read-only exchange; None if it does not answer."""
    protocol = Protocol.of(upstash, settings)
    keys = [protocol.key(name) for name in TYPES]
    queue, pattern = protocol.key("queue"), protocol.pattern("job:")
    reads = ("LINDEX", queue, 0), ("SCAN", 0, "MATCH", pattern, "COUNT", 100), ("GET", protocol.key("shard"))
    commands: list[Command] = [("EVAL", "return 1", 0), ("INFO",), *reads, *(("TYPE", key) for key in keys)]
    wanted = settings.overload_min_replicas
    commands.append(("WAIT", wanted, WAIT_MS) if wanted else ("PING",))
    deadline_s = min(CHECK_TIMEOUT_S, settings.overload_store_deadline_s)
    try:
        replies = await upstash.pipeline(commands, repeatable=True, deadline_s=deadline_s)
    except StoreError as error:
        log.info("shard %d of the store is not usable yet: %s", shard, error)
        return None
    script, info, first, scanned, marker, *types, replicas = replies
    if wanted and (not isinstance(replicas, int) or replicas < wanted):
        reason = "OVERLOAD_MIN_REPLICAS is %d, but replicas of shard %d: %s; until then it accepts no job"
        log.warning(reason, wanted, shard, replicas)
    if isinstance(script, StoreError):
        log.info("shard %d of the store is not usable yet: %s", shard, script)
    facts = info_facts(info if isinstance(info, str) else "")
    refuse_unsafe(facts, in_cluster=bool(upstash.address.tag), server=f"the server of shard {shard}")
    _refuse_foreign(dict(zip(keys, types, strict=True)), first, protocol)
    job_keys = scanned[1] if isinstance(scanned, list) else []
    ids = [str(one).removeprefix(f"{protocol.prefix}job:") for one in (first, *job_keys)]
    return Findings(Marker.read(marker), [one for one in ids if JOB_ID.fullmatch(one)])


def _refuse_foreign(types: dict[str, Any], first: Any, protocol: Protocol) -> None:
    advice = "set OVERLOAD_KEY_PREFIX to an unused prefix"
    for (key, found), expected in zip(types.items(), TYPES.values(), strict=True):
        if isinstance(found, str) and found not in {"none", expected}:
            raise ConfigurationError(f"the key {key} is a {found}, not a {expected}: it holds other data; {advice}")
    # Another application's list: a worker would treat its entries as broken jobs.
    if types[protocol.key("seq")] == "none" and isinstance(first, str) and not JOB_ID.fullmatch(first):
        raise ConfigurationError(f"the list {protocol.key('queue')} holds entries that are no job ids; {advice}")
