"""Repair after a failover that has lost some keys: every job is in its place again, and the counters count them.

Works in pages, while everything runs, and changes nothing in a healthy store: what looks wrong from here is looked at
again inside the script that mends it (``lua/reconcile.lua`` says why that is safe). What it reads takes about 200 bytes
of memory a waiting job.
"""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from overload_demo.config import Settings
from overload_demo.queue.protocol import INSPECT, RECONCILE, RECOUNT, Protocol, malformed, pages
from overload_demo.rest.client import Upstash

PAGE = 500
MAX_PASSES = 10


@dataclass
class _Look:
    """What one pass has read. Counters first, then leases and owners, then the list, then the jobs."""

    last_seq: int
    last_fence: int
    cancelled: str
    tombstones: str
    leased: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    suspects: list[str] = field(default_factory=list)
    buried_alive: set[str] = field(default_factory=set)
    greatest_seq: int = 0
    greatest_fence: int = 0

    def job(self, job_id: str, status: str, seq: int | None, fence: int) -> None:
        """Take in one job: suspicious is what stands nowhere and is no newer than the counters read first."""
        self.greatest_seq, self.greatest_fence = max(self.greatest_seq, seq or 0), max(self.greatest_fence, fence)
        if status == "cancelled" and seq is not None and job_id in self.waiting:
            self.buried_alive.add(job_id)
        if job_id in self.waiting or job_id in self.leased or fence > self.last_fence:
            return
        is_older = (seq or 0) <= self.last_seq
        stray = status == "processing" or (is_older and (status == "queued" or (status == "cancelled" and seq)))
        if stray:
            self.suspects.append(job_id)


class Reconciler:
    """Finds and mends. Raises :class:`StoreError`; may be run again at any time."""

    def __init__(self, upstash: Upstash, settings: Settings) -> None:
        self._upstash, self._protocol = upstash, Protocol(settings.overload_key_prefix)
        self._lease_ms, self._ttl_s = int(settings.worker_lease_s * 1000), settings.queue_result_ttl

    async def run(self) -> Counter[str]:
        """Mend until a pass finds nothing; returns how much of each kind was mended, nothing for a healthy store.

        Kinds: ``queued``, ``leased``, ``freed``, ``buried`` (see ``lua/reconcile.lua``), and the names of counters.
        """
        mended: Counter[str] = Counter()
        for _ in range(MAX_PASSES):
            found = await self._pass()
            mended += found
            if not found:
                break
        return mended

    async def _pass(self) -> Counter[str]:
        look = await self._begin()
        async for job_id in self._list():
            look.waiting.add(job_id)
        async for page in self._jobs():
            for job_id, (status, seq, fence) in zip(page, await self._inspect(page), strict=True):
                look.job(job_id, status, _whole(seq), _whole(fence) or 0)
        # Counters that have fallen behind spoil every comparison: mend them alone, then look again.
        wrong = await self._recount(look)
        if wrong:
            return wrong
        return await self._mend(look)

    async def _begin(self) -> _Look:
        names = ("fence", "cancelled", "tombstones")
        seq = await self._command("GET", self._protocol.key("seq"))
        fence, cancelled, tombstones = await self._command("HMGET", self._protocol.key("stats"), *names)
        look = _Look(_whole(seq) or 0, _whole(fence) or 0, cancelled or "0", tombstones or "0")
        async for member, _ in self._pairs("ZSCAN", "leases"):
            look.leased.add(member)
        async for member, _ in self._pairs("HSCAN", "owners"):
            look.leased.add(member)
        return look

    async def _list(self) -> AsyncIterator[str]:
        """The ids in the list, from the tail: what is pushed meanwhile is met twice, and nothing is missed."""
        at = -1
        while page := await self._command("LRANGE", self._protocol.key("queue"), at - PAGE + 1, at):
            for job_id in page:
                yield str(job_id)
            at -= PAGE

    async def _jobs(self) -> AsyncIterator[list[str]]:
        """The ids of all jobs, in pages; one may come twice."""
        start = f"{self._protocol.prefix}job:"
        pattern = self._protocol.pattern("job:")
        cursor = "0"
        while True:
            cursor, keys = await self._command("SCAN", cursor, "MATCH", pattern, "COUNT", PAGE)
            for page in pages(keys, PAGE):
                yield [str(key).removeprefix(start) for key in page]
            if str(cursor) == "0":
                return

    async def _pairs(self, scan: str, name: str) -> AsyncIterator[tuple[str, str]]:
        cursor = "0"
        while True:
            cursor, flat = await self._command(scan, self._protocol.key(name), cursor, "COUNT", PAGE)
            for member, value in zip(flat[::2], flat[1::2], strict=True):
                yield str(member), str(value)
            if str(cursor) == "0":
                return

    async def _inspect(self, page: list[str]) -> list[Any]:
        reply = await self._upstash.run(self._protocol.call(INSPECT, self._protocol.prefix, *page))
        if not isinstance(reply, list) or len(reply) != len(page):
            raise malformed(INSPECT, ValueError())
        return reply

    async def _recount(self, look: _Look) -> Counter[str]:
        call = self._protocol.call(
            RECOUNT, look.greatest_seq, look.greatest_fence, look.cancelled, look.tombstones, len(look.buried_alive)
        )
        return Counter(map(str, await self._upstash.run(call)))

    async def _mend(self, look: _Look) -> Counter[str]:
        found: Counter[str] = Counter()
        for page in pages([*look.leased, *look.suspects], PAGE):
            pairs = [text for one in page for text in (one, "1" if one in look.leased or one in look.waiting else "0")]
            about = (self._protocol.prefix, look.last_seq, look.last_fence, self._lease_ms, self._ttl_s)
            reply = await self._upstash.run(self._protocol.call(RECONCILE, *about, *pairs))
            found.update(str(one) for one in reply if one)
        return found

    async def _command(self, *command: str | int) -> Any:
        return await self._upstash.command(*command, repeatable=True)


def _whole(text: object) -> int | None:
    """A stored whole number; None for anything else, and for what no counter of ours ever reaches."""
    try:
        number = int(str(text))
    except ValueError:
        return None
    return number if abs(number) < 2**53 else None
