"""An operator's commands: dead letters, pause and resume, removal of a queue, and repair after a lost failover."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar, cast

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreError
from overload_demo.jobs import shard_of
from overload_demo.queue.protocol import (
    MAX_DEAD_ENTRIES,
    PURGE,
    RECONCILE,
    RECOUNT,
    REQUEUE,
    Protocol,
    malformed,
    whole_number,
)
from overload_demo.rest.client import Upstash

Item = TypeVar("Item")
Value = TypeVar("Value")

PAGE = 500
REQUEUE_PAGE = 100  # each entry may be searched for in the whole dead-letter list
MAX_PASSES = 10


@dataclass(frozen=True)
class DeadLetter:
    """One entry of a shard's dead-letter list; ``entry`` is its stored text. An unreadable one has no ``job_id``."""

    job_id: str
    reason: str
    at: str
    entry: str
    shard: int = 0


class QueueAdmin:
    """Manages the dead-letter lists and pauses the queues of all shards. Each call is safe to repeat.

    What fails in one shard is still done in the others; then the first :class:`StoreError` is raised.
    """

    def __init__(self, clients: Sequence[Upstash], settings: Settings) -> None:
        self._settings, self._shards = settings, [(client, Protocol.of(client, settings)) for client in clients]

    async def dead_letters(self, limit: int = MAX_DEAD_ENTRIES) -> list[DeadLetter]:
        """Return the dead letters, oldest first, at most ``limit`` of each shard and at most so many of all."""

        async def read(shard: int, upstash: Upstash, protocol: Protocol) -> list[DeadLetter]:
            found: list[DeadLetter] = []
            while len(found) < limit:
                last = min(len(found) + PAGE, limit) - 1
                page = await upstash.command("LRANGE", protocol.key("dead"), len(found), last, repeatable=True)
                if not page:
                    break
                found += [_dead_letter(str(entry), shard) for entry in page]
            return found

        return list(islice(merge(*await self._in_each(read), key=attrgetter("at")), limit))

    async def job(self, job_id: str) -> dict[str, str]:
        """Return every stored field of a job; empty for an unknown id or shard."""
        if (shard := shard_of(job_id)) >= len(self._shards):
            return {}
        upstash, protocol = self._shards[shard]
        flat = await upstash.command("HGETALL", f"{protocol.prefix}job:{job_id}", repeatable=True)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def requeue(self, letters: Sequence[DeadLetter]) -> list[str]:
        """Put dead jobs back at the tail of the queue of their shard, with all their attempts.

        Returns ``"queued"`` for each, or why it was not changed: ``"no payload"``, ``"not dead"`` (its entry is gone),
        ``"unknown"``, or the state it is in.
        """

        async def put_back(shard: int, upstash: Upstash, protocol: Protocol) -> list[str]:
            verdicts: list[str] = []
            for page in _pairs(letters, shard, REQUEUE_PAGE):
                reply = await upstash.run(protocol.call(REQUEUE, protocol.prefix, *page))
                if not isinstance(reply, list) or 2 * len(reply) != len(page):
                    raise malformed(REQUEUE)
                verdicts += map(str, reply)
            return verdicts

        of_each = [iter(verdicts) for verdicts in await self._in_each(put_back)]
        return [next(of_each[one.shard]) if one.shard < len(of_each) else "unknown" for one in letters]

    async def purge(self, letters: Sequence[DeadLetter]) -> None:
        """Remove entries from the dead-letter lists; their jobs expire after ``QUEUE_RESULT_TTL`` seconds."""

        async def remove(shard: int, upstash: Upstash, protocol: Protocol) -> None:
            for page in _pairs(letters, shard, PAGE):
                await upstash.run(protocol.call(PURGE, protocol.prefix, self._settings.queue_result_ttl, *page))

        await self._in_each(remove)

    async def pause(self) -> None:
        """Lease no more jobs to workers; leased jobs finish, and the API still accepts jobs."""

        async def pause(_: int, upstash: Upstash, protocol: Protocol) -> None:
            await upstash.command("HSET", protocol.key("stats"), "paused", "1", repeatable=True)

        await self._in_each(pause)

    async def resume(self) -> None:
        """Lease jobs again, and wake all idle workers; the others lease at their next poll."""

        async def resume(_: int, upstash: Upstash, protocol: Protocol) -> None:
            commands = ("HDEL", protocol.key("stats"), "paused"), ("PUBLISH", protocol.key("wake"), "")
            resumed, _ = await upstash.pipeline(commands, repeatable=True)
            if isinstance(resumed, StoreError):
                raise resumed

        await self._in_each(resume)

    async def reconcile(self) -> Counter[str]:
        """Repair every shard (:class:`QueueRepair`); returns the sums of the repairs."""
        found = await self._in_each(lambda _, upstash, __: QueueRepair(upstash, self._settings).run())
        return sum(found, Counter())

    async def _in_each(self, work: Callable[[int, Upstash, Protocol], Awaitable[Value]]) -> list[Value]:
        """Do the work in all shards at the same time; an error names its shard, if there are several."""
        works = (work(shard, *one) for shard, one in enumerate(self._shards))
        done = await asyncio.gather(*works, return_exceptions=True)
        for shard, one in enumerate(done):
            if isinstance(one, StoreError) and len(done) > 1:
                raise type(one)(f"shard {shard}: {one}", one.outcome)
            if isinstance(one, BaseException):
                raise one
        return cast(list[Value], done)


def _pages(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in pages of at most ``size``, in order."""
    return (items[at : at + size] for at in range(0, len(items), size))


def _pairs(letters: Sequence[DeadLetter], shard: int, size: int) -> Iterator[list[str]]:
    """Id and entry of each dead letter of a shard, in pages of at most ``size`` letters."""
    for page in _pages([letter for letter in letters if letter.shard == shard], size):
        yield [text for letter in page for text in (letter.job_id, letter.entry)]


def _dead_letter(entry: str, shard: int) -> DeadLetter:
    try:
        fields: Any = json.loads(entry)
        return DeadLetter(str(fields["job_id"]), str(fields["reason"]), str(fields["at"]), entry, shard)
    except (ValueError, LookupError, TypeError, RecursionError):
        return DeadLetter("", "unreadable entry", "", entry, shard)


async def remove_all(upstash: Upstash, prefix: str) -> None:
    """Remove every key with the prefix and no other; keys added during the removal may remain.

    Raises :class:`ConfigurationError` for an empty prefix, which would match all data, and :class:`StoreError`.
    """
    if not prefix:
        raise ConfigurationError("without a key prefix all data of the database would be removed")
    async for keys in _scan(upstash, "SCAN", after=("MATCH", Protocol(prefix).pattern())):
        if keys:
            await upstash.command("UNLINK", *keys, repeatable=True)


async def _scan(upstash: Upstash, *before: str, after: Sequence[str] = ()) -> AsyncIterator[list[Any]]:
    """The replies of SCAN, HSCAN or ZSCAN up to the last; the cursor comes between ``before`` and ``after``."""
    cursor = "0"
    while True:
        cursor, found = await upstash.command(*before, cursor, *after, "COUNT", PAGE, repeatable=True)
        yield found
        if str(cursor) == "0":
            return


@dataclass
class _Snapshot:
    """What one pass has read: first the counters, then leases and owners, then the list, then the jobs."""

    last_seq: int
    last_fence: int
    cancelled: str
    tombstones: str
    leased: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    suspects: list[str] = field(default_factory=list)
    cancelled_in_list: set[str] = field(default_factory=set)
    greatest_seq: int = 0
    greatest_fence: int = 0

    def add_job(self, job_id: str, status: str, seq: int | None, fence: int) -> None:
        """Add a job. It is a suspect if it has no place and is no newer than the counters, which were read first."""
        self.greatest_seq, self.greatest_fence = max(self.greatest_seq, seq or 0), max(self.greatest_fence, fence)
        if status == "cancelled" and seq is not None and job_id in self.waiting:
            self.cancelled_in_list.add(job_id)
        if job_id in self.waiting or job_id in self.leased or fence > self.last_fence:
            return
        is_older = (seq or 0) <= self.last_seq
        if status == "processing" or (is_older and (status == "queued" or (status == "cancelled" and seq))):
            self.suspects.append(job_id)


class QueueRepair:
    """Restores consistency after a failover that lost keys: every job in its place, and the counters correct.

    Runs while the queue is in use and changes nothing in a healthy store: each suspect is checked again inside the
    script that repairs it (``lua/reconcile.lua`` explains why that is safe). Needs about 200 bytes of memory for each
    waiting job. Raises :class:`StoreError`; may be run again at any time.
    """

    def __init__(self, upstash: Upstash, settings: Settings) -> None:
        self._upstash, self._protocol = upstash, Protocol.of(upstash, settings)
        self._lease_ms, self._ttl_s = int(settings.worker_lease_s * 1000), settings.queue_result_ttl

    async def run(self) -> Counter[str]:
        """Repair until a pass finds nothing; returns how many repairs of each kind were made, none if healthy.

        Kinds: ``queued``, ``leased``, ``freed``, ``cancelled`` (see ``lua/reconcile.lua``), and the names of counters.
        """
        repaired: Counter[str] = Counter()
        for _ in range(MAX_PASSES):
            found = await self._pass()
            repaired += found
            if not found:
                break
        return repaired

    async def _pass(self) -> Counter[str]:
        snapshot, at = await self._begin(), -1
        # From the tail: an id pushed meanwhile makes others come twice, and none is missed.
        while ids := await self._command("LRANGE", self._protocol.key("queue"), at - PAGE + 1, at):
            snapshot.waiting.update(map(str, ids))
            at -= PAGE
        start, is_job = f"{self._protocol.prefix}job:", ("MATCH", self._protocol.pattern("job:"))
        async for keys in _scan(self._upstash, "SCAN", after=is_job):
            for page in _pages([str(key).removeprefix(start) for key in keys], PAGE):
                for job_id, (status, seq, fence) in zip(page, await self._inspect(page), strict=True):
                    snapshot.add_job(job_id, status, whole_number(seq), whole_number(fence) or 0)
        # Counters that are behind make every comparison wrong: repair them alone, then start again.
        return await self._recount(snapshot) or await self._repair(snapshot)

    async def _begin(self) -> _Snapshot:
        names = ("fence", "cancelled", "tombstones")
        seq = await self._command("GET", self._protocol.key("seq"))
        fence, cancelled, tombstones = await self._command("HMGET", self._protocol.key("stats"), *names)
        snapshot = _Snapshot(whole_number(seq) or 0, whole_number(fence) or 0, cancelled or "0", tombstones or "0")
        for scan, name in (("ZSCAN", "leases"), ("HSCAN", "owners")):
            async for flat in _scan(self._upstash, scan, self._protocol.key(name)):
                snapshot.leased.update(map(str, flat[::2]))
        return snapshot

    async def _inspect(self, page: Sequence[str]) -> list[list[str]]:
        """The status, seq and fence of each job, empty where a field is missing or the key is not a hash."""
        reads = [("HMGET", f"{self._protocol.prefix}job:{job_id}", "status", "seq", "fence") for job_id in page]
        found = await self._upstash.pipeline(reads, repeatable=True)
        if unread := [one for one in found if isinstance(one, StoreError) and "WRONGTYPE" not in str(one)]:
            raise unread[0]
        return [[one or "" for one in job] if isinstance(job, list) else [""] * 3 for job in found]

    async def _recount(self, seen: _Snapshot) -> Counter[str]:
        counted = seen.greatest_seq, seen.greatest_fence, seen.cancelled, seen.tombstones, len(seen.cancelled_in_list)
        return Counter(map(str, await self._upstash.run(self._protocol.call(RECOUNT, *counted))))

    async def _repair(self, seen: _Snapshot) -> Counter[str]:
        found: Counter[str] = Counter()
        for page in _pages([*seen.leased, *seen.suspects], PAGE):
            pairs = [text for one in page for text in (one, "1" if one in seen.leased or one in seen.waiting else "0")]
            about = (self._protocol.prefix, seen.last_seq, seen.last_fence, self._lease_ms, self._ttl_s)
            reply = await self._upstash.run(self._protocol.call(RECONCILE, *about, *pairs))
            found.update(str(one) for one in reply if one)
        return found

    async def _command(self, *command: str | int) -> Any:
        return await self._upstash.command(*command, repeatable=True)
