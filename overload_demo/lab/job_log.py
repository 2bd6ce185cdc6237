"""What happened to each job, from two witnesses: the clients' answers and the lines the worker wrote as it worked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, cast

import numpy as np

from overload_demo.load import LoadResult
from overload_demo.load.plan import Floats

EFFECTS = "effects.log"  # in the folder of a run


@dataclass(frozen=True)
class JobEvent:
    """A line of a worker's effect log: a job was started, or had its effect; ``at_mono_s`` is CLOCK_MONOTONIC."""

    what: Literal["start", "effect"]
    job_id: str
    attempt: int
    at_mono_s: float


def read_events(log: Path) -> Iterator[JobEvent]:
    """The lines of an effect log in the order they were written; a torn one is skipped, no log is an empty one."""
    if log.exists():
        with log.open() as lines:
            for line in lines:
                parts = line.split()
                if len(parts) == 4 and line.endswith("\n") and parts[0] in ("start", "effect"):
                    what = cast(Literal["start", "effect"], parts[0])
                    yield JobEvent(what, parts[1], int(parts[2]), float(parts[3]))


@dataclass(frozen=True)
class JobLog:
    """One row a job that was accepted and had its effect, in the order of acceptance: seconds since the load began.

    ``intended_s`` is when its request was to be sent, ``accepted_s`` when its client had the 202, ``started_s`` its
    first start, ``done_s`` its first effect; float64, shape ``(jobs,)``. A job can start a moment before its client has
    read the answer. ``started_s`` is NaN where that line is torn. ``offered`` counts all requests of the load.
    """

    intended_s: Floats
    accepted_s: Floats
    started_s: Floats
    done_s: Floats
    offered: int

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of the run whose files lie in ``folder``: the arrays of its load, and the effect log of its worker."""
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
        """Jobs that went through ÷ span: the λ of Little's law over a finite log."""
        return self.accepted_s.size / self.span_s

    @property
    def mean_wait_s(self) -> float:
        """The mean of the times from acceptance to effect, seconds: the W of Little's law."""
        return float((self.done_s - self.accepted_s).mean())

    def depth(self) -> tuple[Floats, Floats]:
        """Each moment a job came or went, in order, and how many were accepted and not done from then on."""
        moments_s = np.concatenate([self.accepted_s, self.done_s])
        order = np.argsort(moments_s, kind="stable")
        steps = np.repeat([1.0, -1.0], self.accepted_s.size)
        return moments_s[order], np.cumsum(steps[order])

    def mean_in_system(self) -> float:
        """The L of Little's law, found without it: the time integral of the depth ÷ span."""
        moments_s, depth = self.depth()
        return float(np.sum(depth[:-1] * np.diff(moments_s))) / self.span_s
