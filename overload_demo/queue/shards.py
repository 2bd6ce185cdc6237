"""Several shards: each is a complete queue in a store of its own. With one shard nothing of this module runs.

A job's id names its shard, so a poll or a cancellation asks only that one. A new job with an Idempotency-Key goes to
the shard that the key's record names; any other one goes to a shard that takes jobs at present. A worker serves all
shards, so a job's place and wait in the deployment are about those in its shard, times the number of shards.
"""

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from statistics import fmean

from overload_demo.config import Settings
from overload_demo.errors import Outcome, OverloadDemoError, QueueFullError, StoreError, StoreUnavailableError
from overload_demo.jobs import JobState, on_shard, shard_of
from overload_demo.queue.group_commit import Answer, resolve
from overload_demo.queue.producer import Enqueued, NewJob, Producer
from overload_demo.queue.results import COUNTERS, JobStatus, QueueStats, Results
from overload_demo.rest.client import Upstash

JOBS_IN_A_ROW = 32  # to one shard; chosen
# A shard gets no new jobs for FULL_S after a refusal, nor while a reply takes longer than SLOW_S, as few fsyncs do.
FULL_S, SLOW_S = 0.25, 0.1
ROUND_PAUSE_S, PROBE_FIRST_S, PROBE_LONGEST_S = 0.1, 0.5, 2.0
# Of the numbers of one shard; the other ones need more than a sum.
SUMMED = ("queue_length", "in_flight", "drain_rate_per_s", "dead_letters", "worker_rest_calls", *COUNTERS)

log = logging.getLogger(__name__)


def queue_of(
    clients: Sequence[Upstash], settings: Settings, on_commit: Callable[[int, float], object] = lambda *_: None
) -> "tuple[Producer | ShardedProducer, Results | ShardedResults]":
    """Return both sides of the API's queue: over the only client, or over those of all shards."""
    count = len(clients)
    producers = [Producer(one, settings, on_commit=on_commit, shard=at, shards=count) for at, one in enumerate(clients)]
    deadline_s = settings.overload_store_deadline_s
    return producers[0] if count == 1 else ShardedProducer(producers, deadline_s), results_of(clients, settings)


def results_of(clients: Sequence[Upstash], settings: Settings) -> "Results | ShardedResults":
    """Return the reading side of the queue alone."""
    results = [Results(client, settings, shards=len(clients)) for client in clients]
    return results[0] if len(clients) == 1 else ShardedResults(results)


def shard_of_record(record: str, shards: int) -> int:
    """Return the shard of an Idempotency-Key's record, by rendezvous hashing: the one with the largest digest.

    One more shard takes over 1 of ``shards + 1`` records; all others stay where they are. A key that was used before
    and is taken over enqueues once more: its record is in its former shard. (Thaler and Ravishankar, 1998)
    """
    return max(range(shards), key=lambda shard: hashlib.sha256(f"{shard} {record}".encode()).digest())


@dataclass(slots=True, eq=False)
class _Offer:
    """A job that some shard shall take, its caller and its deadline, and the refusals of this round by shard."""

    job: NewJob
    answer: Answer[Enqueued]
    give_up_at: float
    refusals: dict[int, OverloadDemoError] = field(default_factory=dict)


class ShardedProducer:
    """The interface of :class:`Producer` over the producers of all shards; sets the id of each job that it enqueues.

    Jobs without an Idempotency-Key: 32 in a row go to one shard, then the next has its turn, so calls stay large and
    depths even. A job that certainly was not enqueued goes to another shard, until one takes it, all have refused it,
    or the deadline has passed; one with a key goes to its own shard again. An unknown outcome is passed on.
    A shard that has failed gets no more jobs without a key until it takes writes again, unless all have failed; nor
    does one that has left a job without an answer for ``SLOW_S``, unless all have.
    """

    def __init__(self, producers: Sequence[Producer], deadline_s: float) -> None:
        self._producers, self._deadline_s = producers, deadline_s
        self._current, self._left = random.randrange(len(producers)), JOBS_IN_A_ROW
        self._full_until = [0.0] * len(producers)
        self._sent = [dict[_Offer, float]() for _ in producers]  # when; the oldest first
        self._failed: dict[int, asyncio.Task[None]] = {}  # the earliest failure first
        self._closing = False
        self._loop = asyncio.get_running_loop()

    async def enqueue(self, job: NewJob) -> Enqueued:
        """Commit one job, like :meth:`Producer.enqueue`."""
        future: asyncio.Future[Enqueued] = self._loop.create_future()
        self.hand_in(job, partial(resolve, future))
        return await future

    def hand_in(self, job: NewJob, answer: Answer[Enqueued]) -> None:
        """Commit one job without a task, like :meth:`Producer.hand_in`."""
        self._begin_round(_Offer(job, answer, time.monotonic() + self._deadline_s))

    async def cancel(self, job_id: str, owner: str = "") -> JobState | None:
        """Cancel a job in its shard, like :meth:`Producer.cancel`; None also for an id of an unknown shard."""
        shard = shard_of(job_id)
        return await self._producers[shard].cancel(job_id, owner) if shard < len(self._producers) else None

    async def aclose(self) -> None:
        """Commit what is waiting, then stop."""
        self._closing = True
        await asyncio.sleep(ROUND_PAUSE_S)  # the last rounds begin
        await asyncio.gather(*(one.aclose() for one in self._producers))
        for probes in self._failed.values():
            probes.cancel()
        await asyncio.gather(*self._failed.values(), return_exceptions=True)

    def _begin_round(self, offer: _Offer) -> None:
        """Hand a job in that no shard has refused in this round."""
        offer.refusals.clear()
        record = offer.job.idempotency_record
        shard = shard_of_record(record, len(self._producers)) if record else self._choose(offer.refusals)
        assert shard is not None  # there are no refusals
        self._send_to(shard, offer)

    def _send_to(self, shard: int, offer: _Offer) -> None:
        self._sent[shard][offer] = time.monotonic()
        offer.job.job_id = on_shard(offer.job.job_id, shard)
        self._producers[shard].hand_in(offer.job, partial(self._answered, offer), offer.give_up_at)

    def _answered(self, offer: _Offer, reply: Enqueued | OverloadDemoError) -> None:
        """Pass on the reply of a shard, or try another one if it certainly did not enqueue the job."""
        shard, refusals = shard_of(offer.job.job_id), offer.refusals
        del self._sent[shard][offer]
        if isinstance(reply, StoreError):
            self._note_failure(shard, reply)
        elif isinstance(reply, QueueFullError):
            self._full_until[shard] = time.monotonic() + FULL_S
        else:
            offer.answer(reply)
            return
        refusals[shard] = reply
        out_of_time = self._closing or time.monotonic() + ROUND_PAUSE_S >= offer.give_up_at
        if reply.outcome is Outcome.UNKNOWN or out_of_time:
            offer.answer(reply)
            return
        other = None if offer.job.idempotency_record else self._choose(refusals)
        bound = next((one for one in refusals.values() if isinstance(one, QueueFullError)), None)
        if other is not None:
            self._send_to(other, offer)
        elif bound or not any(isinstance(one, StoreUnavailableError) for one in refusals.values()):
            offer.answer(bound or reply)
        else:
            self._loop.call_later(ROUND_PAUSE_S, self._begin_round, offer)

    def _choose(self, refusals: dict[int, OverloadDemoError]) -> int | None:
        """Return the shard for a job without a key; None if no other than those that refused it is worth trying."""
        now, count = time.monotonic(), len(self._producers)
        if self._left == 0:
            self._current, self._left = (self._current + 1) % count, JOBS_IN_A_ROW
        for since in (now - SLOW_S, 0.0):
            for shard in chain(range(self._current, count), range(self._current)):
                is_slow = next(iter(self._sent[shard].values()), now) < since
                if not (is_slow or shard in self._failed or now < self._full_until[shard] or shard in refusals):
                    if shard != self._current:
                        self._current, self._left = shard, JOBS_IN_A_ROW
                    self._left -= 1
                    return shard
        if any(isinstance(one, QueueFullError) for one in refusals.values()):
            return None
        full = sorted(set(range(count)) - self._failed.keys(), key=lambda shard: self._full_until[shard])
        return next((shard for shard in (*full, *self._failed) if shard not in refusals), None)

    def _note_failure(self, shard: int, error: StoreError) -> None:
        if shard not in self._failed and not self._closing:
            log.warning("shard %d gets no new jobs for now: %s", shard, error)
            self._failed[shard] = asyncio.create_task(self._readmit(shard))

    async def _readmit(self, shard: int) -> None:
        """Probe a failed shard until it takes writes again."""
        pause_s = PROBE_FIRST_S
        while shard in self._failed:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PROBE_LONGEST_S)
            with suppress(StoreError):
                await self._producers[shard].probe()
                del self._failed[shard]
                log.info("shard %d gets new jobs again", shard)


class ShardedResults:
    """The interface of :class:`Results` over the results of all shards."""

    def __init__(self, results: Sequence[Results]) -> None:
        self._results = results

    async def status(self, job_id: str) -> JobStatus | None:
        """The state of a job; None if it or its shard is unknown, or it has expired."""
        shard = shard_of(job_id)
        return await self._results[shard].status(job_id) if shard < len(self._results) else None

    def hand_in(self, job_id: str, answer: Answer[JobStatus | None]) -> None:
        """Read the state of a job without a task, like :meth:`Results.hand_in`."""
        shard = shard_of(job_id)
        if shard < len(self._results):
            self._results[shard].hand_in(job_id, answer)
        else:
            asyncio.get_running_loop().call_soon(answer, None)

    async def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        """The states of at most 500 jobs, with one exchange or more for each of their shards."""
        by_shard = [[one for one in job_ids if shard_of(one) == shard] for shard in range(len(self._results))]
        calls = (one.statuses(ids) for one, ids in zip(self._results, by_shard, strict=True))
        found = dict(zip(chain(*by_shard), chain(*await asyncio.gather(*calls)), strict=True))
        return [found.get(job_id) for job_id in job_ids]

    async def stats(self) -> QueueStats:
        """The sums over the shards that answer within two seconds; raises :class:`StoreError` if none does."""
        return summed(await asyncio.gather(*(one.stats() for one in self._results), return_exceptions=True))

    async def ping(self) -> str:
        """Return the shards that take no writes within a second, in one line; raise if none does."""
        errors = await asyncio.gather(*(one.ping() for one in self._results), return_exceptions=True)
        down = [f"shard {shard}: {error}" for shard, error in enumerate(errors) if isinstance(error, StoreError)]
        if len(down) == len(self._results):
            raise StoreUnavailableError("; ".join(down))
        return "; ".join(down)

    async def aclose(self) -> None:
        """Answer what is waiting, then stop."""
        await asyncio.gather(*(one.aclose() for one in self._results))


Reader = Results | ShardedResults


def summed(shards: Sequence[QueueStats | BaseException]) -> QueueStats:
    """Return the numbers of a deployment from those of its shards, which it also holds.

    The service time is weighted by the drain rates; the wait is that of a job behind all those that wait.
    """
    answered = [one for one in shards if isinstance(one, QueueStats)]
    known = [one for one in shards if isinstance(one, QueueStats | StoreError)]
    if len(known) < len(shards) or not answered:
        raise next(one for one in shards if isinstance(one, BaseException))
    sums = {name: sum(getattr(one, name) for one in answered) for name in SUMMED}
    worker_ids = frozenset[str]().union(*(one.worker_ids for one in answered))
    weights = [one.drain_rate_per_s for one in answered]
    service_s = fmean([one.service_time_s for one in answered], weights if any(weights) else None)
    return replace(
        answered[0],
        **sums,
        oldest_age_s=max(one.oldest_age_s for one in answered),
        paused=any(one.paused for one in answered),
        service_time_s=service_s,
        estimated_wait_s=round(sums["queue_length"] * service_s / max(1, len(worker_ids)), 3),
        workers_alive=len(worker_ids),
        worker_ids=worker_ids,
        shards=tuple(known),
    )
