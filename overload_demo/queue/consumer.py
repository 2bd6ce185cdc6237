"""The worker's side of the queue: lease a batch, extend it, settle it. Every call is safe to repeat.

Reading tour 9 of 13; next: overload_demo/worker/lease_renewer.py. Look for the lease token. Question: what would a lost
reply cost without it?
"""

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from overload_demo.config import Settings
from overload_demo.errors import StoreError
from overload_demo.queue.protocol import EXTEND, LEASE, MAX_DEAD_ENTRIES, RATE_DECAY_S, SETTLE, Protocol, malformed
from overload_demo.rest import Argument, ScriptCall
from overload_demo.rest.client import Upstash
from overload_demo.work import utc_now

MAX_LEASE_BYTES = 1_048_576


class LeaseEnd(StrEnum):
    """How a lease ends: with a result, with an error, on the dead-letter list, or back at the head of the queue."""

    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """The exclusive right to run one job until its lease ends; ``attempt`` counts from 1.

    ``fence`` grows with every lease of its ``shard``, so the store recognises a settlement of an older one.
    """

    job_id: str
    payload: str
    attempt: int
    fence: str
    idempotency_record: str
    shard: int = 0


def about(job: LeasedJob) -> dict[str, str | int]:
    """The fields of a log record about a job."""
    return {"job_id": job.job_id, "attempt": job.attempt}


@dataclass(frozen=True)
class Lease:
    """The reply to one lease call: jobs in queue order, and the counts without them.

    ``again``: no job was leased, but entries remain in the list; call again. ``first_end_s`` is given if no job was
    leased: seconds until the first of all leases ends. ``head`` is when the job now at the head was accepted, as stored
    in ``created_at``; "" for an empty list.
    """

    jobs: list[LeasedJob]
    queue_length: int
    in_flight: int
    again: bool = False
    paused: bool = False
    first_end_s: float = math.inf
    head: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one leased job: ``text`` is the result as JSON or the error, ``busy_s`` the seconds it ran."""

    job: LeasedJob
    end: LeaseEnd
    text: str = ""
    started_at: str = ""
    completed_at: str = ""
    busy_s: float = 0.0


class Consumer:
    """Leases and settles for one ``worker_id``, which no other live worker has. Raises :class:`StoreError`.

    ``predecessors`` are ids of workers known to be dead: the first lease call returns their jobs to the queue at once.
    Jobs of other dead workers return when their leases expire. ``shard`` is the number of the queue, if there are more.
    """

    def __init__(
        self, upstash: Upstash, settings: Settings, worker_id: str, predecessors: Sequence[str] = (), shard: int = 0
    ) -> None:
        self._upstash, self._protocol, self._settings = upstash, Protocol.of(upstash, settings), settings
        self.worker_id, self.shard, self._lease_ms = worker_id, shard, int(settings.worker_lease_s * 1000)
        self._token: str | None = None
        self._predecessors = " ".join(predecessors)

    async def lease(self, max_jobs: int, sleep_s: float = 0.0, message: str = "") -> Lease:
        """Lease up to ``max_jobs`` jobs; with 0 it only returns expired leases and reads the counts.

        If there are none, the worker may sleep for ``sleep_s`` seconds: it counts as alive, and the next job makes a
        script publish "" to ``jobs:wake``. A ``message`` is published there in any case.
        """
        return self._leased(await self._upstash.run(self._lease_call(max_jobs, sleep_s, message)))

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Settle jobs; returns how many were fenced: their lease was lost, and nothing changed for them."""
        return _fenced(await self._upstash.run(self._settle_call(settlements)), len(settlements))

    async def settle_and_lease(
        self, settlements: Sequence[Settlement], max_jobs: int, sleep_s: float = 0.0, message: str = ""
    ) -> tuple[int, Lease | StoreError]:
        """Settle and lease in one exchange. Raises if settling failed; a failed lease is returned as its error."""
        calls = [self._settle_call(settlements), self._lease_call(max_jobs, sleep_s, message)]
        settled, leased = await self._upstash.run_in_order(*calls)
        if isinstance(settled, StoreError):
            raise settled
        fenced = _fenced(settled, len(settlements))
        return fenced, leased if isinstance(leased, StoreError) else self._leased(leased)

    async def extend(self, jobs: Sequence[LeasedJob]) -> set[str]:
        """Extend leases and renew this worker's heartbeat; returns the ids whose lease is lost."""
        pairs = [field for job in jobs for field in (job.job_id, job.fence)]
        call = self._protocol.call(EXTEND, self._lease_ms, self.worker_id, self._upstash.calls, *pairs)
        reply = await self._upstash.run(call)
        if not isinstance(reply, list):
            raise malformed(EXTEND)
        return {str(job_id) for job_id in reply}

    async def leave(self) -> None:
        """Remove this worker from the live ones, after its last settlement."""
        await self._upstash.command("HDEL", self._protocol.key("workers"), self.worker_id, repeatable=True)

    def _lease_call(self, max_jobs: int, sleep_s: float, message: str) -> ScriptCall:
        # After a lost reply the token is sent again, and the store repeats that reply.
        self._token = self._token or secrets.token_hex(8)
        settings = self._settings
        lease = self.worker_id, self._token, self._lease_ms
        limits = min(max_jobs, settings.worker_max_batch), MAX_LEASE_BYTES, settings.worker_max_attempts
        rest = utc_now(), self._predecessors, self._upstash.calls, settings.queue_result_ttl, MAX_DEAD_ENTRIES
        return self._protocol.call(LEASE, self._protocol.prefix, *lease, *limits, *rest, int(1000 * sleep_s), message)

    def _leased(self, reply: Any) -> Lease:
        try:
            fence, length, in_flight, hint, first_end_ms, head, *fields = reply
            rows = zip(*[iter(fields)] * 4, strict=True)
            jobs = [LeasedJob(id, text, int(attempt), fence, record, self.shard) for id, text, attempt, record in rows]
            first_end_s = (float(first_end_ms) + 1) / 1000 if first_end_ms else math.inf
            lease = Lease(jobs, int(length), int(in_flight), hint == "again", hint == "paused", first_end_s, str(head))
        except (ValueError, TypeError):
            raise malformed(LEASE) from None
        self._token, self._predecessors = None, ""
        return lease

    def _settle_call(self, settlements: Sequence[Settlement]) -> ScriptCall:
        fields: list[Argument] = []
        for one in settlements:
            job = one.job
            fields += (job.job_id, job.fence, one.end.value, one.text, one.started_at, one.completed_at)
            fields += (job.attempt, job.idempotency_record)
        ttl_s, busy_s = self._settings.queue_result_ttl, sum(one.busy_s for one in settlements)
        about_all = self._protocol.prefix, ttl_s, RATE_DECAY_S, busy_s, MAX_DEAD_ENTRIES
        return self._protocol.call(SETTLE, *about_all, *fields)


def _fenced(reply: Any, count: int) -> int:
    if not isinstance(reply, list) or len(reply) != count or not all(one in (0, 1) for one in reply):
        raise malformed(SETTLE)
    return reply.count(0)
