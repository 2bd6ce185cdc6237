"""What happened to each job: from the clients' responses, the worker's effect log, and the store.

A reconciliation uses no counter of the system under test: *accepted* are the ids in responses, *effects* are lines the
worker appended as they happened, *states* are read for each id.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ValidationError

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.jobs import JOB_ID, JobState
from overload_demo.lab.result import Reconciliation, SpikeResult
from overload_demo.lab.stack import EFFECTS, Stack
from overload_demo.load import LoadResult
from overload_demo.load.plan import Floats, RetryPolicy, Until
from overload_demo.queue.maintenance import QueueAdmin
from overload_demo.queue.results import MAX_READ_JOBS
from overload_demo.queue.shards import Reader
from overload_demo.store.connect import opened

LOOK_EVERY_S = 0.05


def check_clients(retry: RetryPolicy | None) -> None:
    """Raise :class:`ConfigurationError` for clients that wait for results: their requests are not one job each."""
    if retry is not None and retry.until is Until.DONE:
        raise ConfigurationError('retry: a log of jobs needs clients with until="accepted", not "done"')


@dataclass(frozen=True)
class JobEvent:
    """A line of a worker's effect log: the "start" or "effect" of a job; ``at_mono_s`` is CLOCK_MONOTONIC."""

    what: str
    job_id: str
    attempt: int
    at_mono_s: float


def read_events(log: Path) -> Iterator[JobEvent]:
    """Yield the lines of an effect log in order; a torn line is skipped, a missing log is empty."""
    if log.exists():
        with log.open() as lines:
            for line in lines:
                match line.split():
                    case [("start" | "effect") as what, job_id, attempt, at_mono_s] if line.endswith("\n"):
                        yield JobEvent(what, job_id, int(attempt), float(at_mono_s))


def read_effects(log: Path) -> Counter[str]:
    """Count the effects of each job in an effect log."""
    return Counter(event.job_id for event in read_events(log) if event.what == "effect")


@dataclass(frozen=True)
class JobLog:
    """One row a job that was accepted and had its effect, in the order of acceptance: seconds since the load began.

    ``intended_s`` is when its request was due, ``accepted_s`` when its client had the 202, ``started_s`` its first
    start (NaN where that line is torn), ``done_s`` its first effect; float64, shape ``(jobs,)``. A job can start just
    before its client has read the response. ``offered`` counts all requests of the load; ``undone_ids`` are the jobs
    accepted and never done, in the order of the schedule.
    """

    intended_s: Floats
    accepted_s: Floats
    started_s: Floats
    done_s: Floats
    offered: int
    undone_ids: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the arrays of a load and its effect log in ``folder``. Raises as :func:`check_clients`."""
        load = LoadResult.load(folder / "load.npz")
        check_clients(load.plan.retry)
        first: dict[tuple[str, str], float] = {}
        for event in read_events(folder / EFFECTS):
            first.setdefault((event.what, event.job_id), event.at_mono_s - load.started_mono_s)
        seen = load.accepted
        accepted = zip(load.done_s[seen].tolist(), load.intended_s[seen].tolist(), load.accepted_ids, strict=True)
        rows = [
            (intended_s, accepted_s, first.get(("start", job_id), np.nan), first["effect", job_id])
            for accepted_s, intended_s, job_id in sorted(accepted)
            if ("effect", job_id) in first
        ]
        intended_s, accepted_s, started_s, done_s = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        undone = tuple(job_id for job_id in load.accepted_ids if ("effect", job_id) not in first)
        return cls(intended_s, accepted_s, started_s, done_s, load.kind.size, undone)

    @property
    def span_s(self) -> float:
        """From the first acceptance to the last effect, seconds: the system is empty before and after."""
        return float(self.done_s.max() - self.accepted_s.min())

    @property
    def jobs_per_s(self) -> float:
        """Jobs ÷ span: the λ of Little's law over a finite log."""
        return self.accepted_s.size / self.span_s

    @property
    def mean_wait_s(self) -> float:
        """The mean time from acceptance to effect, seconds: the W of Little's law."""
        return float((self.done_s - self.accepted_s).mean())

    @property
    def mean_stays_s(self) -> list[float]:
        """The mean time of a job before its 202, in the queue, and at work, seconds."""
        queued_s = np.maximum(0, self.started_s - self.accepted_s)
        stays = self.accepted_s - self.intended_s, queued_s, self.done_s - self.started_s
        return [float(np.mean(stay)) for stay in stays]

    def depth(self) -> tuple[Floats, Floats]:
        """Return each moment a job came or went, in order, and the jobs accepted and not done from then on."""
        moments_s = np.concatenate([self.accepted_s, self.done_s])
        order = np.argsort(moments_s, kind="stable")
        return moments_s[order], np.cumsum(np.where(order < self.accepted_s.size, 1.0, -1.0))

    def mean_in_system(self) -> float:
        """Return the L of Little's law, computed without it: the time integral of the depth ÷ span."""
        moments_s, depth = self.depth()
        return float(np.sum(depth[:-1] * np.diff(moments_s))) / self.span_s


def reconcile(
    accepted: Sequence[str], effects: Counter[str], states: dict[str, JobState], left: int = 0
) -> Reconciliation:
    """Account for each id; one that two clients received is a duplicate. ``left``: jobs that the queue still counts."""
    ids = Counter(accepted)
    done = {job_id for job_id in ids if states.get(job_id) is JobState.DONE}
    failed = {job_id for job_id in ids if states.get(job_id) is JobState.FAILED}
    unended = [job_id for job_id in ids if states.get(job_id) in (JobState.QUEUED, JobState.PROCESSING)][:left]
    known = failed.union(unended)
    lost = [job_id for job_id in ids if job_id not in known and not (job_id in done and effects[job_id])]
    duplicated = [job_id for job_id, count in ids.items() if effects[job_id] > 1 or count > 1]
    return Reconciliation(
        accepted=len(accepted),
        done=len(done),
        failed=len(failed),
        lost=len(lost),
        unended=len(unended),
        duplicated=len(duplicated),
        unclaimed=len(effects.keys() - ids.keys()),
        examples=[f"lost {job_id}" for job_id in lost[:5]] + [f"duplicated {job_id}" for job_id in duplicated[:5]],
    )


async def read_stored(results: Reader, job_ids: Sequence[str]) -> tuple[dict[str, JobState], float]:
    """Read the state of each job, unknown ids left out, and the slot's capacity by the durations in the results.

    The capacity is in jobs a second, 0.0 without any duration. Raises :class:`StoreError`.
    """
    states: dict[str, JobState] = {}
    durations_ms: list[float] = []
    for start in range(0, len(job_ids), MAX_READ_JOBS):
        page = job_ids[start : start + MAX_READ_JOBS]
        for job_id, status in zip(page, await results.statuses(page), strict=True):
            if status is not None:
                states[job_id] = status.state
                if isinstance(status.result, dict) and "processing_duration_ms" in status.result:
                    durations_ms.append(status.result["processing_duration_ms"])
    return states, round(1000 / fmean(durations_ms), 4) if any(durations_ms) else 0.0


@dataclass(frozen=True)
class PromiseRun:
    """A spike and the promise it is measured against: *done within* ``promise_s`` *seconds of the 202*."""

    name: str
    result: SpikeResult
    log: JobLog
    promise_s: float

    @classmethod
    def read(cls, name: str, result: SpikeResult, promise_s: float) -> Self:
        """Read the files in ``result.folder``. Raises :class:`ConfigurationError` unless ``promise_s`` is above 0."""
        if not 0 < promise_s < float("inf"):
            raise ConfigurationError(f"the promise must be a number of seconds above 0, not {promise_s:g}")
        return cls(name, result, JobLog.read(result.folder or Path()), promise_s)

    @property
    def in_time(self) -> int:
        """Jobs done within the promise: the goodput."""
        return int(np.count_nonzero(self.log.done_s - self.log.accepted_s <= self.promise_s))

    @property
    def ends(self) -> dict[str, int]:
        """How many requests came to which end; the sum is the number offered.

        A request is refused with a 429, because the queue is full; an expired job did not start by its deadline. The
        last count should be 0: failed, lost, no response.
        """
        done, refused = self.log.done_s.size, self.result.errors.get("status 429", 0)
        ends = {"done in time": self.in_time, "done late": done - self.in_time}
        ends |= {"refused at once": refused, "expired": self.result.expired}
        return ends | {"anything else": self.result.offered - sum(ends.values())}

    @property
    def refused_share(self) -> float:
        """Refused of offered, 0 to 1."""
        return self.ends["refused at once"] / self.result.offered

    @property
    def oldest_age_s(self) -> float:
        """The greatest age sampled at the head of the queue, seconds."""
        return max(self.result.series.oldest_age_s, default=0.0)


class JobLife(BaseModel, frozen=True):
    """The fields of one job in the store; times are UTC, to the millisecond, empty for what has not happened yet."""

    job_id: str
    status: JobState
    payload: dict[str, Any]
    result: dict[str, Any] | None = None
    created_at: str
    started_at: str = ""
    completed_at: str = ""

    def seconds(self) -> dict[str, float]:
        """Return seconds since acceptance by moment: accepted, started, completed; only what has happened."""
        moments = {"accepted": self.created_at, "started": self.started_at, "completed": self.completed_at}
        zero = datetime.fromisoformat(self.created_at)
        return {name: (datetime.fromisoformat(at) - zero).total_seconds() for name, at in moments.items() if at}


async def follow(stack: Stack, job_id: str, *, within_s: float = 60.0) -> list[tuple[float, str]]:
    """Poll the API for a job until it has ended; return each new status with the seconds since the first poll.

    Raises :class:`OverloadDemoError` for an unknown job, and for one that has not ended within ``within_s`` seconds.
    """
    began = time.monotonic()
    seen: list[tuple[float, str]] = []
    while time.monotonic() - began < within_s:
        try:
            status = str((await asyncio.to_thread(stack.get, f"/jobs/{job_id}"))["status"])
        except (OSError, ValueError) as error:
            raise OverloadDemoError(f"cannot follow {job_id}: {error}") from None
        if not seen or seen[-1][1] != status:
            seen.append((round(time.monotonic() - began, 3), status))
        if status in (JobState.DONE, JobState.FAILED):
            return seen
        await asyncio.sleep(LOOK_EVERY_S)
    raise OverloadDemoError(f"{job_id} has not ended within {within_s:g} s")


async def read_life(stack: Stack, answer: object) -> JobLife | None:
    """Read the job in ``answer``, an id or a JSON object with a ``job_id``, from the store of ``stack``.

    Returns None for an unknown id and for any other answer, such as a student's wrong one.
    """
    job_id = answer.get("job_id") if isinstance(answer, dict) else answer
    if not isinstance(job_id, str) or not JOB_ID.fullmatch(job_id):
        return None
    async with opened(stack.store) as clients:
        fields: dict[str, Any] = dict(await QueueAdmin(clients, stack.settings).job(job_id))
    for name in ("payload", "result"):
        fields[name] = json.loads(fields[name]) if fields.get(name) else None
    try:
        return JobLife.model_validate(fields)
    except ValidationError:
        return None
