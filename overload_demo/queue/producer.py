"""The API's writing side: jobs go into the store by group commit, and only then is anybody told so."""

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
from overload_demo.queue.group_commit import GroupCommit
from overload_demo.queue.protocol import CANCEL, ENQUEUE, Protocol, malformed
from overload_demo.rest.client import Upstash
from overload_demo.work import utc_now

MAX_BATCH_JOBS = 256
MAX_BATCH_BYTES = 1_048_576  # as sent, that is after escaping: a tenth of what Upstash takes in one request
OVERHEAD_BYTES = 280  # of a job's id, record, fingerprint, owner, deadline and punctuation
SENDERS = 2


@dataclass(frozen=True, slots=True)
class NewJob:
    """A validated job on its way in: ``payload`` is the client's JSON text.

    ``idem`` and ``fingerprint`` are those of a request with an Idempotency-Key, ``owner`` whoever may ask for the job
    ('' = everybody), ``expires_in_s`` the seconds within which it is to start.
    """

    job_id: str
    payload: str
    idempotency_record: str = ""
    fingerprint: str = ""
    owner: str = ""
    expires_in_s: float | None = None

    @property
    def options(self) -> str:
        """What only some jobs have, as the script reads it; '' for a plain one."""
        if not self.idempotency_record and not self.owner and self.expires_in_s is None:
            return ""
        within_s = "-" if self.expires_in_s is None else repr(self.expires_in_s)
        return f"{self.idempotency_record or '-'} {within_s} {self.owner or '-'} {self.fingerprint or '-'}"


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A committed job; ``job_id`` is an earlier one's when the same Idempotency-Key came again."""

    job_id: str
    estimated_wait_s: float


class Producer:
    """Enqueues and cancels jobs. When a call returns, the store has committed it; closing flushes what waits.

    ``on_commit`` is told of each call that enqueues, once it has ended: how many jobs, and after how many seconds.
    """

    def __init__(
        self, upstash: Upstash, settings: Settings, *, on_commit: Callable[[int, float], object] = lambda *_: None
    ) -> None:
        self._upstash, self._protocol = upstash, Protocol(settings.overload_key_prefix)
        self._on_commit, self._ttl_s = on_commit, settings.queue_result_ttl
        self._bounds = (
            settings.overload_max_queue_depth,
            settings.overload_max_wait_s,
            settings.worker_processing_delay,
        )
        self._group: GroupCommit[NewJob, Enqueued] = GroupCommit(
            self._commit,
            size_of=_bytes_sent,
            senders=SENDERS,
            max_items=MAX_BATCH_JOBS,
            max_bytes=MAX_BATCH_BYTES,
            deadline_s=settings.overload_store_deadline_s,
        )
        self._cancels: GroupCommit[tuple[str, str], JobState | None] = GroupCommit(
            self._commit_cancels, senders=1, max_items=MAX_BATCH_JOBS, deadline_s=settings.overload_store_deadline_s
        )

    async def enqueue(self, job: NewJob) -> Enqueued:
        """Commit one job.

        Raises :class:`StoreError` with its outcome, :class:`QueueFullError`, :class:`IdempotencyConflictError`.
        """
        return await self._group.submit(job)

    async def cancel(self, job_id: str, owner: str = "") -> JobState | None:
        """Cancel a job if it is waiting; returns the state it is in from now on. Repeating it is harmless.

        None if there is no such job, or if it is not this owner's ('' = anybody may). Raises :class:`StoreError`.
        """
        return await self._cancels.submit((job_id, owner))

    async def aclose(self) -> None:
        """Commit what is waiting, answer everybody, stop."""
        await asyncio.gather(self._group.aclose(), self._cancels.aclose())

    async def _commit(self, jobs: Sequence[NewJob], deadline_s: float) -> list[Enqueued | OverloadDemoError]:
        args = [field for job in jobs for field in (job.job_id, job.payload, job.options)]
        call = self._protocol.call(ENQUEUE, self._protocol.prefix, *self._bounds, utc_now(), self._ttl_s, *args)
        since = time.perf_counter()
        try:
            reply = await self._upstash.run(call, deadline_s=deadline_s)
        finally:
            self._on_commit(len(jobs), time.perf_counter() - since)
        try:
            wait_s, verdicts = float(reply[0]), reply[1:]
            if not math.isfinite(wait_s):
                raise ValueError(wait_s)
            return [_outcome(job, verdict, wait_s) for job, verdict in zip(jobs, verdicts, strict=True)]
        except (ValueError, TypeError, LookupError) as error:
            raise malformed(ENQUEUE, error) from None

    async def _commit_cancels(
        self, asked: Sequence[tuple[str, str]], deadline_s: float
    ) -> list[JobState | OverloadDemoError | None]:
        args = [field for job_id, owner in asked for field in (job_id, owner)]
        reply = await self._upstash.run(
            self._protocol.call(CANCEL, self._protocol.prefix, utc_now(), *args), deadline_s=deadline_s
        )
        try:
            states: list[JobState | OverloadDemoError | None] = [_state(one) for one in reply]
        except (ValueError, TypeError) as error:
            raise malformed(CANCEL, error) from None
        if len(states) != len(asked):
            raise malformed(CANCEL, ValueError())
        return states


def _state(stored: Any) -> JobState | None:
    """The state the script tells; one that somebody else has written is as good as failed."""
    if stored is None:
        return None
    if not isinstance(stored, str):
        raise TypeError(stored)
    try:
        return JobState(stored)
    except ValueError:
        return JobState.FAILED


def _bytes_sent(job: NewJob) -> int:
    """At most so many bytes of a request: where JSON goes into JSON, a character becomes up to twelve.

    Plain ASCII at most doubles (quotes, backslashes, line ends), which needs no closer look.
    """
    text = job.payload
    if text.isascii() and "\x7f" not in text:
        return OVERHEAD_BYTES + 2 * len(text)
    return OVERHEAD_BYTES + len(encode_basestring_ascii(text))


def _outcome(job: NewJob, verdict: str, wait_s: float) -> Enqueued | OverloadDemoError:
    if verdict == "+":
        return Enqueued(job.job_id, wait_s)
    if verdict[:1] == "=" and JOB_ID.fullmatch(verdict[1:]):
        return Enqueued(verdict[1:], wait_s)
    if verdict == "!":
        return IdempotencyConflictError("this Idempotency-Key was used before with another body")
    if verdict == "f":
        return QueueFullError("the queue is full; try again later", retry_after_s=wait_s)
    raise ValueError(verdict)
