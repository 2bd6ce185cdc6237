"""The API's reading side: where a job stands, and the queue's numbers. Reads that come together share one exchange."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from overload_demo.config import Settings
from overload_demo.jobs import JobState, why_not_shown
from overload_demo.queue.group_commit import GroupCommit
from overload_demo.queue.protocol import MAX_RETURNED_DISTANCE, STATS, STATUS, Protocol, RecentRates, malformed
from overload_demo.rest.client import Upstash

MAX_READ_JOBS = 500
# A reply over 10 MB is an error, and a text of quotes and backslashes doubles on its way.
MAX_READ_RESULT_BYTES = 2_097_152
SENDERS = 2
PING_DEADLINE_S = 1.0


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One look at a job. ``queue_position`` (1 = next) and ``estimated_wait_s`` count only while it is queued.

    ``queue_position`` is an upper bound: jobs before it that were cancelled count until a lease passes them.
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
    """One consistent look at the queue; counts since the store was new, rates over the last seconds.

    ``accepted = done + failed + cancelled + queue_length + in_flight``; ``failed`` holds those dead and expired.
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


class Results:
    """Reads job states and statistics; nothing here writes."""

    def __init__(self, upstash: Upstash, settings: Settings) -> None:
        self._upstash, self._protocol = upstash, Protocol(settings.overload_key_prefix)
        self._default_service_s = settings.worker_processing_delay
        self._deadline_s = settings.overload_store_deadline_s
        self._jobs: GroupCommit[str, JobStatus | None] = GroupCommit(
            self._read, senders=SENDERS, max_items=MAX_READ_JOBS, deadline_s=self._deadline_s
        )
        # Whoever asks at the same time shares one answer, so a crowd costs one connection each.
        self._numbers: GroupCommit[None, QueueStats] = GroupCommit(
            self._read_stats, senders=1, max_items=10_000, deadline_s=self._deadline_s
        )
        self._pings: GroupCommit[None, None] = GroupCommit(
            self._ping, senders=1, max_items=10_000, deadline_s=min(PING_DEADLINE_S, self._deadline_s)
        )

    async def status(self, job_id: str) -> JobStatus | None:
        """Where a job stands; None if it is unknown or has expired. Raises :class:`StoreError`."""
        return await self._jobs.submit(job_id)

    async def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        """The same for at most 500 jobs, in one exchange unless their results are large."""
        return await self._read(job_ids, self._deadline_s)

    async def stats(self) -> QueueStats:
        """The queue's numbers. Raises :class:`StoreError`."""
        return await self._numbers.submit(None)

    async def ping(self) -> None:
        """Return if the store answers within a second. Raises :class:`StoreError`."""
        return await self._pings.submit(None)

    async def aclose(self) -> None:
        """Answer who is waiting, stop."""
        await asyncio.gather(self._jobs.aclose(), self._numbers.aclose(), self._pings.aclose())

    async def _ping(self, askers: Sequence[None], deadline_s: float) -> list[None]:
        await self._upstash.command("PING", repeatable=True, deadline_s=deadline_s)
        return list(askers)

    async def _read_stats(self, askers: Sequence[None], deadline_s: float) -> list[QueueStats]:
        call = self._protocol.call(STATS, self._protocol.prefix)
        reply = await self._upstash.run(call, deadline_s=deadline_s)
        try:
            return [self._stats_from(reply)] * len(askers)
        except (ValueError, TypeError, LookupError) as error:
            raise malformed(STATS, error) from None

    async def _read(self, job_ids: Sequence[str], deadline_s: float) -> list[JobStatus | None]:
        give_up_at = time.monotonic() + deadline_s
        found: list[JobStatus | None] = []
        while len(found) < len(job_ids):
            found += await self._read_some(job_ids[len(found) :], give_up_at - time.monotonic())
        return found

    async def _read_some(self, job_ids: Sequence[str], deadline_s: float) -> list[JobStatus | None]:
        """As many of the jobs, from the first, as fit into one answer; at least one."""
        call = self._protocol.call(
            STATUS, self._protocol.prefix, MAX_RETURNED_DISTANCE, MAX_READ_RESULT_BYTES, *job_ids
        )
        reply = await self._upstash.run(call, deadline_s=deadline_s)
        try:
            workers, jobs, busy_s, *found = reply
            rates = RecentRates.read(jobs, busy_s)
            per_job_s = rates.service_time_s(self._default_service_s) / max(1, int(workers))
            if not 1 <= len(found) <= len(job_ids):
                raise ValueError(len(found))
            return [_status_from(job, per_job_s) for job in found]
        except (ValueError, TypeError, LookupError) as error:
            raise malformed(STATUS, error) from None

    def _stats_from(self, reply: list[Any]) -> QueueStats:
        entries, in_flight, created_at, workers, dead_letters, calls, now_s, *pairs = reply
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        depth = max(0, int(entries) - _count(fields.get("tombstones")))
        rates = RecentRates.read(
            fields.get("recent_jobs"), fields.get("recent_busy_s"), fields.get("recent_at"), float(now_s)
        )
        service_s = rates.service_time_s(self._default_service_s)
        counted = ("accepted", "done", "failed", "dead", "interrupted", "cancelled", "expired")
        return QueueStats(
            queue_length=depth,
            in_flight=int(in_flight),
            oldest_age_s=_age_s(created_at, float(now_s)),
            estimated_wait_s=round(depth * service_s / max(1, int(workers)), 3),
            service_time_s=service_s,
            drain_rate_per_s=round(rates.drain_rate_per_s(), 3),
            workers_alive=int(workers),
            paused=fields.get("paused") == "1",
            dead_letters=int(dead_letters),
            worker_rest_calls=int(calls),
            **{name: _count(fields.get(name)) for name in counted},
        )


def _count(text: Any) -> int:
    """A stored counter; 0 for what somebody else has left there."""
    try:
        return max(0, int(text or 0))
    except (ValueError, TypeError, OverflowError):
        return 0


def _age_s(created_at: str, now_s: float) -> float:
    """Seconds between a stored time and the store's clock; 0.0 for an empty queue or an unreadable time."""
    try:
        created = datetime.fromisoformat(created_at)
    except ValueError:
        return 0.0
    return round(max(0.0, now_s - created.replace(tzinfo=created.tzinfo or UTC).timestamp()), 3)


def _status_from(job: list[Any] | None, per_job_s: float) -> JobStatus | None:
    if job is None:
        return None
    state, position, started_at, result, error, *owner = job
    try:
        return JobStatus(
            JobState(state),
            int(position),
            round(int(position) * per_job_s, 3),
            str(started_at),
            _result_from(result) if result else None,
            str(error),
            owner[0] if owner else "",
        )
    except (ValueError, RecursionError):  # somebody else wrote into this hash: say so, never fail the whole batch
        reason = "unreadable: the stored job is malformed"
        return JobStatus(JobState.FAILED, 0, 0.0, "", None, reason, owner[0] if owner else "")


def _result_from(text: str) -> Any:
    """The value of a stored result; raises ValueError for one that an answer could not hold."""
    if reason := why_not_shown(text):
        raise ValueError(reason)
    return json.loads(text)
