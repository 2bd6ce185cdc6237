"""What happened to each job: from the clients' responses, the worker's effect log, and the store.

A reconciliation uses no counter of the system under test: *accepted* are the ids in responses, *effects* are lines the
worker appended as they happened, *states* are read for each id.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Self

import numpy as np

from overload_demo.errors import ConfigurationError
from overload_demo.jobs import JobState
from overload_demo.lab.result import SpikeResult
from overload_demo.load import LoadResult
from overload_demo.load.plan import Floats
from overload_demo.queue.results import MAX_READ_JOBS, Results

EFFECTS = "effects.log"  # in the folder of a run


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
    before its client has read the response. ``offered`` counts all requests of the load.
    """

    intended_s: Floats
    accepted_s: Floats
    started_s: Floats
    done_s: Floats
    offered: int

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the files of a run in ``folder``: the arrays of its load, and its effect log."""
        load = LoadResult.load(folder / "load.npz")
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
        return cls(intended_s, accepted_s, started_s, done_s, offered=load.kind.size)

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

    def depth(self) -> tuple[Floats, Floats]:
        """Return each moment a job came or went, in order, and the jobs accepted and not done from then on."""
        moments_s = np.concatenate([self.accepted_s, self.done_s])
        order = np.argsort(moments_s, kind="stable")
        return moments_s[order], np.cumsum(np.where(order < self.accepted_s.size, 1.0, -1.0))

    def mean_in_system(self) -> float:
        """Return the L of Little's law, computed without it: the time integral of the depth ÷ span."""
        moments_s, depth = self.depth()
        return float(np.sum(depth[:-1] * np.diff(moments_s))) / self.span_s


@dataclass(frozen=True)
class Reconciliation:
    """Accepted jobs by outcome; ``examples`` names some ids of the lost and the duplicated.

    ``lost``: no terminal state, or done without an effect. ``duplicated``: more than one effect. ``failed``: ended with
    an error. ``unclaimed``: effects of jobs whose 202 reached no client (a timeout, a response cut off).
    """

    accepted: int
    done: int
    failed: int
    lost: int
    duplicated: int
    unclaimed: int
    examples: list[str] = field(default_factory=list)


def reconcile(accepted: Sequence[str], effects: Counter[str], states: dict[str, JobState]) -> Reconciliation:
    """Account for every accepted id. An id that two clients received is one of the duplicates."""
    ids = Counter(accepted)
    done = {job_id for job_id in ids if states.get(job_id) is JobState.DONE}
    failed = {job_id for job_id in ids if states.get(job_id) is JobState.FAILED}
    lost = [job_id for job_id in ids if job_id not in failed and not (job_id in done and effects[job_id])]
    duplicated = [job_id for job_id, count in ids.items() if effects[job_id] > 1 or count > 1]
    return Reconciliation(
        accepted=len(accepted),
        done=len(done),
        failed=len(failed),
        lost=len(lost),
        duplicated=len(duplicated),
        unclaimed=len(effects.keys() - ids.keys()),
        examples=[f"lost {job_id}" for job_id in lost[:5]] + [f"duplicated {job_id}" for job_id in duplicated[:5]],
    )


async def read_stored(results: Results, job_ids: Sequence[str]) -> tuple[dict[str, JobState], float]:
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
    return states, round(1000 / fmean(durations_ms), 1) if any(durations_ms) else 0.0


@dataclass(frozen=True)
class PromiseRun:
    """A spike and the promise it is measured against: *done within* ``promise_s`` *seconds of the 202*.

    ``offered = in_time + late + refused + expired + other``; ``other`` should be 0: failed, lost, no response.
    ``undone_ids`` are the jobs accepted and never done, in the order of the schedule.
    """

    name: str
    result: SpikeResult
    log: JobLog
    promise_s: float
    undone_ids: tuple[str, ...] = ()

    @classmethod
    def read(cls, name: str, result: SpikeResult, promise_s: float) -> Self:
        """Read the files in ``result.folder``. Raises :class:`ConfigurationError` unless ``promise_s`` is above 0."""
        if not 0 < promise_s < float("inf"):
            raise ConfigurationError(f"the promise must be a number of seconds above 0, not {promise_s:g}")
        folder = result.folder or Path()
        effects, load = read_effects(folder / EFFECTS), LoadResult.load(folder / "load.npz")
        undone = tuple(job_id for job_id in load.accepted_ids if not effects[job_id])
        return cls(name, result, JobLog.read(folder), promise_s, undone)

    @cached_property
    def in_time(self) -> int:
        """Jobs done within the promise: the goodput."""
        return int(np.count_nonzero(self.log.done_s - self.log.accepted_s <= self.promise_s))

    @property
    def late(self) -> int:
        """Jobs done after the promise."""
        return self.log.done_s.size - self.in_time

    @property
    def refused(self) -> int:
        """Requests refused at once with a 429, because the queue was full."""
        return self.result.errors.get("status 429", 0)

    @property
    def expired(self) -> int:
        """Jobs that did not start by their deadline and were never run."""
        return self.result.expired

    @property
    def other(self) -> int:
        """All other requests."""
        return self.result.offered - self.in_time - self.late - self.refused - self.expired

    @property
    def refused_share(self) -> float:
        """Refused of offered, 0 to 1."""
        return self.refused / self.result.offered

    @property
    def oldest_age_s(self) -> float:
        """The greatest age sampled at the head of the queue, seconds."""
        return max(self.result.series.oldest_age_s, default=0.0)
