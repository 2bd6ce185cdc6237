"""The API's reading side: the state of a job, and the queue's numbers. Concurrent reads share one store call.

Reading tour 12 of 13; next: tests/fundamentals/test_promises.py. Look for how concurrent polls share one call.
Question: why is a position only an upper bound after a cancellation (lua/status.lua)?
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from overload_demo.config import Settings
from overload_demo.errors import StoreError
from overload_demo.jobs import JobState, why_not_shown
from overload_demo.queue.group_commit import Answer, GroupCommit, SharedCall
from overload_demo.queue.protocol import STATS, STATUS, Protocol, RecentRates, age_s, malformed, whole_number
from overload_demo.rest.client import Upstash

COUNTERS = ("accepted", "done", "failed", "dead", "interrupted", "cancelled", "expired")
MAX_READ_JOBS = 500
# A returned job is searched for among so many at the head: two batches of four workers.
MAX_RETURNED_DISTANCE = 1_024
# Upstash allows 10 MB a reply, and escaping can double a text of quotes and backslashes.
MAX_READ_RESULT_BYTES = 2_097_152
PING_DEADLINE_S = 1.0
SHARD_DEADLINE_S = 2.0  # for the numbers of one of several shards: the others count without it


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The state of a job at one moment. ``queue_position`` (1 = next) and ``estimated_wait_s`` are 0 unless queued.

    ``queue_position`` is an upper bound: cancelled jobs before it count until they are removed at the head.
    """

    state: JobState
    queue_position: int
    estimated_wait_s: float
    started_at: str
    result: Any
    error: str
    owner: str = ""


@dataclass(frozen=True)
class QueueStats:
    """The queue at one moment: totals since the store was created, rates over the last seconds.

    ``accepted = done + failed + cancelled + queue_length + in_flight``; ``failed`` includes dead and expired jobs.
    ``worker_ids`` are those of the workers alive. Sums over several shards have the numbers of each, or its error, in
    ``shards``.
    """

    queue_length: int
    in_flight: int
    oldest_age_s: float
    estimated_wait_s: float
    service_time_s: float
    drain_rate_per_s: float
    workers_alive: int
    accepted: int
    done: int
    failed: int
    dead: int
    interrupted: int
    cancelled: int
    expired: int
    paused: bool
    dead_letters: int
    worker_rest_calls: int
    worker_ids: frozenset[str] = frozenset()
    shards: "tuple[QueueStats | StoreError, ...]" = ()

    @property
    def unreachable(self) -> list[str]:
        """Each shard that did not answer, with the reason."""
        return [f"shard {shard}: {one}" for shard, one in enumerate(self.shards) if isinstance(one, StoreError)]


class Results:
    """Reads job states and statistics; writes nothing. Raises :class:`StoreError`.

    For one of several ``shards``, positions and waits are multiplied by their number, since the workers serve all.
    """

    def __init__(self, upstash: Upstash, settings: Settings, *, shards: int = 1) -> None:
        self._upstash, self._protocol = upstash, Protocol.of(upstash, settings)
        self._shards, self._default_service_s = shards, settings.worker_processing_delay
        self._deadline_s = settings.overload_store_deadline_s
        self._jobs: GroupCommit[str, JobStatus | None] = GroupCommit(
            self._read_some,
            max_items=MAX_READ_JOBS,
            worth=MAX_READ_JOBS if shards > 1 else 1,
            deadline_s=self._deadline_s,
        )
        stats_s = self._deadline_s if shards == 1 else min(SHARD_DEADLINE_S, self._deadline_s)
        self._stats = SharedCall(self._read_stats, stats_s)
        self._pings = SharedCall(self._ping, min(PING_DEADLINE_S, self._deadline_s))

    async def status(self, job_id: str) -> JobStatus | None:
        """The state of a job; None if it is unknown or has expired."""
        return await self._jobs.submit(job_id)

    def hand_in(self, job_id: str, answer: Answer[JobStatus | None]) -> None:
        """Read the state of a job without a task: ``answer`` is called later with it, or with the error."""
        self._jobs.hand_in(job_id, answer)

    async def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        """The states of at most 500 jobs, in one exchange unless their results are large."""
        give_up_at, found = time.monotonic() + self._deadline_s, list[JobStatus | None]()
        while len(found) < len(job_ids):
            found += await self._read_some(job_ids[len(found) :], give_up_at - time.monotonic())
        return found

    async def stats(self) -> QueueStats:
        """The queue's numbers."""
        return await self._stats.reply()

    async def ping(self) -> str:
        """Return "" once the store takes writes; raise if it does not within a second."""
        await self._pings.reply()
        return ""

    async def aclose(self) -> None:
        """Answer what is waiting, then stop."""
        await asyncio.gather(self._jobs.aclose(), self._stats.aclose(), self._pings.aclose())

    async def _ping(self, deadline_s: float) -> None:
        # A write that changes nothing: a read-only replica answers a PING, and refuses this. A full store takes both.
        await self._upstash.command("PERSIST", self._protocol.key("queue"), repeatable=True, deadline_s=deadline_s)

    async def _read_stats(self, deadline_s: float) -> QueueStats:
        reply = await self._upstash.run(self._protocol.call(STATS, self._protocol.prefix), deadline_s=deadline_s)
        try:
            return self._stats_from(reply)
        except (ValueError, TypeError, LookupError):
            raise malformed(STATS) from None

    async def _read_some(self, job_ids: Sequence[str], deadline_s: float) -> list[JobStatus | None]:
        """The first of the jobs, as many as fit into one reply; at least one."""
        call = self._protocol.call(
            STATUS, self._protocol.prefix, MAX_RETURNED_DISTANCE, MAX_READ_RESULT_BYTES, *job_ids
        )
        reply = await self._upstash.run(call, deadline_s=deadline_s)
        try:
            workers, jobs, busy_s, *found = reply
            rates = RecentRates.read(jobs, busy_s)
            per_job_s = rates.service_time_s(self._default_service_s) / max(1, int(workers))
            if not 1 <= len(found) <= len(job_ids):
                raise ValueError
            return [_status_from(job, per_job_s, self._shards) for job in found]
        except (ValueError, TypeError, LookupError):
            raise malformed(STATUS) from None

    def _stats_from(self, reply: list[Any]) -> QueueStats:
        entries, in_flight, created_at, workers, dead_letters, calls, now_s, *pairs = reply
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        counted: dict[str, Any] = {
            name: max(0, whole_number(fields.get(name)) or 0) for name in ("tombstones", *COUNTERS)
        }
        depth = max(0, int(entries) - counted.pop("tombstones"))
        jobs, busy_s, at_s = (fields.get(name) for name in ("recent_jobs", "recent_busy_s", "recent_at"))
        rates = RecentRates.read(jobs, busy_s, at_s, float(now_s))
        service_s = rates.service_time_s(self._default_service_s)
        return QueueStats(
            queue_length=depth,
            in_flight=int(in_flight),
            oldest_age_s=round(age_s(created_at, float(now_s), 0.0), 3),
            estimated_wait_s=round(self._shards * depth * service_s / max(1, len(workers)), 3),
            service_time_s=service_s,
            drain_rate_per_s=round(rates.drain_rate_per_s(), 3),
            workers_alive=len(workers),
            worker_ids=frozenset(workers),
            paused=fields.get("paused") == "1",
            dead_letters=int(dead_letters),
            worker_rest_calls=int(calls),
            **counted,
        )


def _status_from(job: list[Any] | None, per_job_s: float, shards: int) -> JobStatus | None:
    if job is None:
        return None
    state, position, started_at, result, error, owner = (*job, "")[:6]
    try:
        if result and why_not_shown(result):
            raise ValueError
        place, value = shards * int(position), json.loads(result) if result else None
        return JobStatus(JobState(state), place, round(place * per_job_s, 3), str(started_at), value, str(error), owner)
    except (ValueError, RecursionError):  # another program wrote into this hash: the rest of the batch is still good
        reason = "unreadable: the stored job is malformed"
        return JobStatus(JobState.FAILED, 0, 0.0, "", None, reason, owner)
