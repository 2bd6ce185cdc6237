"""The API's writing side: enqueue and cancel by group commit. A call returns after the store has committed.

With ``OVERLOAD_MIN_REPLICAS`` it also waits until that number of replicas has the write.

Reading tour 5 of 13; next: overload_demo/api/direct.py. Look for the verdicts of the script. Question: which error
(see errors.py) leaves open whether the job is stored?
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any

from overload_demo.config import Settings
from overload_demo.errors import IdempotencyConflictError, OverloadDemoError, QueueFullError
from overload_demo.jobs import JOB_ID, JobState
from overload_demo.queue.group_commit import Answer, GroupCommit
from overload_demo.queue.protocol import CANCEL, ENQUEUE, PROBE, TOUCH, Protocol, malformed
from overload_demo.rest import Confirmation
from overload_demo.rest.client import Upstash
from overload_demo.work import utc_now

UNSENT_S = 0.5  # of several shards; chosen: longer than most fsyncs, and short beside the deadline
PROBE_DEADLINE_S = 1.0
OVERHEAD_BYTES = 280  # of a job's id, record, fingerprint, owner, deadline and punctuation


@dataclass(slots=True)
class NewJob:
    """A validated job to enqueue; ``payload`` is the client's JSON text. With several shards, one of them sets its id.

    ``idempotency_record`` and ``fingerprint`` belong to a request with an Idempotency-Key. Only ``owner`` may read the
    job ('' = any client). The job must start within ``expires_in_s`` seconds.
    """

    job_id: str
    payload: str
    idempotency_record: str = ""
    fingerprint: str = ""
    owner: str = ""
    expires_in_s: float | None = None

    @property
    def options(self) -> str:
        """The optional fields in the form that the script reads; '' for a job with none."""
        if not self.idempotency_record and not self.owner and self.expires_in_s is None:
            return ""
        within_s = "-" if self.expires_in_s is None else repr(self.expires_in_s)
        return f"{self.idempotency_record or '-'} {within_s} {self.owner or '-'} {self.fingerprint or '-'}"


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A committed job; for a repeated Idempotency-Key, ``job_id`` is that of the first request."""

    job_id: str
    estimated_wait_s: float


class Producer:
    """Enqueues and cancels jobs. ``on_commit(jobs, seconds)`` is called after each call that enqueues.

    As ``shard`` of several it has its part of the configured bounds, counts waits as in ``shards.py``, and fails a job
    not sent within ``UNSENT_S``, for another shard to take it.
    """

    def __init__(
        self,
        upstash: Upstash,
        settings: Settings,
        *,
        on_commit: Callable[[int, float], object] = lambda *_: None,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        self._upstash, self._protocol = upstash, Protocol.of(upstash, settings)
        self._on_commit, self._ttl_s = on_commit, settings.queue_result_ttl
        replicas, touch = settings.overload_min_replicas, self._protocol.call(TOUCH)
        self._confirmation = Confirmation(replicas, touch) if replicas else None
        self._shards, self._unsent_s = shards, UNSENT_S if shards > 1 else None
        depth, wait_s = settings.overload_max_queue_depth, settings.overload_max_wait_s
        own_depth = depth // shards + (shard < depth % shards)
        self._bounds = own_depth, wait_s / shards, settings.worker_processing_delay
        limit_s, most = settings.overload_store_deadline_s, settings.overload_max_batch
        worth = most if shards > 1 else 1  # calls to several shards overlap anyway
        self._jobs: GroupCommit[NewJob, Enqueued] = GroupCommit(
            self._commit, size_of=_bytes_sent, max_items=most, worth=worth, deadline_s=limit_s, unsent_s=self._unsent_s
        )
        self._cancels: GroupCommit[tuple[str, str], JobState | None] = GroupCommit(
            self._commit_cancels, calls_at_once=1, max_items=most, deadline_s=limit_s
        )

    async def enqueue(self, job: NewJob) -> Enqueued:
        """Commit one job.

        Raises :class:`StoreError` with its outcome, :class:`QueueFullError`, :class:`IdempotencyConflictError`.
        """
        return await self._jobs.submit(job)

    def hand_in(self, job: NewJob, answer: Answer[Enqueued], give_up_at: float | None = None) -> None:
        """Commit one job without a task: ``answer`` is called later with what :meth:`enqueue` returns or raises.

        ``give_up_at`` is its deadline by the monotonic clock, if another shard had it before.
        """
        self._jobs.hand_in(job, answer, give_up_at)

    async def cancel(self, job_id: str, owner: str = "") -> JobState | None:
        """Cancel a job if it is still waiting; returns its state afterwards. Safe to repeat.

        Returns None for an unknown job or one of another owner ('' matches any). Raises :class:`StoreError`.
        """
        return await self._cancels.submit((job_id, owner))

    async def probe(self) -> None:
        """Ask the store for a write that changes nothing; raise :class:`StoreError` if it would refuse an enqueue."""
        await self._upstash.run(
            self._protocol.call(PROBE), deadline_s=PROBE_DEADLINE_S, confirmation=self._confirmation
        )

    async def aclose(self) -> None:
        """Commit what is waiting, then stop."""
        await asyncio.gather(self._jobs.aclose(), self._cancels.aclose())

    async def _commit(self, jobs: Sequence[NewJob], deadline_s: float) -> list[Enqueued | OverloadDemoError]:
        args = [field for job in jobs for field in (job.job_id, job.payload, job.options)]
        call = self._protocol.call(ENQUEUE, self._protocol.prefix, *self._bounds, utc_now(), self._ttl_s, *args)
        since = time.perf_counter()
        try:
            reply = await self._upstash.run(
                call, deadline_s=deadline_s, unsent_s=self._unsent_s, confirmation=self._confirmation
            )
        finally:
            self._on_commit(len(jobs), time.perf_counter() - since)
        try:
            wait_s, verdicts = float(reply[0]) * self._shards, reply[1:]
            if not math.isfinite(wait_s):
                raise ValueError
            return [_enqueued(job, verdict, wait_s) for job, verdict in zip(jobs, verdicts, strict=True)]
        except (ValueError, TypeError, LookupError):
            raise malformed(ENQUEUE) from None

    async def _commit_cancels(self, jobs: Sequence[tuple[str, str]], deadline_s: float) -> list[JobState | None]:
        args = [field for job_id, owner in jobs for field in (job_id, owner)]
        call = self._protocol.call(CANCEL, self._protocol.prefix, utc_now(), *args)
        reply = await self._upstash.run(call, deadline_s=deadline_s, confirmation=self._confirmation)
        if not isinstance(reply, list) or len(reply) != len(jobs):
            raise malformed(CANCEL)
        return [_state(one) for one in reply]


def _state(stored: Any) -> JobState | None:
    if stored is None:
        return None
    if not isinstance(stored, str):
        raise malformed(CANCEL)
    try:
        return JobState(stored)
    except ValueError:  # written by another program
        return JobState.FAILED


def _bytes_sent(job: NewJob) -> int:
    """An upper bound of the job's bytes in a request: as JSON inside JSON, a character takes up to twelve bytes.

    Plain ASCII at most doubles (quotes, backslashes, line ends), so its length is enough.
    """
    text = job.payload
    if text.isascii() and "\x7f" not in text:
        return OVERHEAD_BYTES + 2 * len(text)
    return OVERHEAD_BYTES + len(encode_basestring_ascii(text))


def _enqueued(job: NewJob, verdict: str, wait_s: float) -> Enqueued | OverloadDemoError:
    if verdict == "+":
        return Enqueued(job.job_id, wait_s)
    if verdict[:1] == "=" and JOB_ID.fullmatch(verdict[1:]):
        return Enqueued(verdict[1:], wait_s)
    if verdict == "!":
        return IdempotencyConflictError("this Idempotency-Key was used before with another body")
    if verdict == "f":
        return QueueFullError("the queue is full; try again later", retry_after_s=wait_s)
    raise ValueError(verdict)
