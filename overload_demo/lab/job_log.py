"""What happened to each job, from two witnesses: the clients' answers and the lines the worker wrote as it worked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, cast

import numpy as np

from overload_demo.load import LoadResult
from overload_demo.load.summary import Floats


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
    read the answer.
    """

    intended_s: Floats
    accepted_s: Floats
    started_s: Floats
    done_s: Floats

    @classmethod
    def read(cls, folder: Path, effect_log: Path) -> Self:
        """Of the load whose arrays lie in a run folder, and the effect log of the stack it was fired at."""
        load = LoadResult.load(folder / "load.npz")
        first: dict[tuple[str, str], float] = {}
        for event in read_events(effect_log):
            first.setdefault((event.what, event.job_id), event.at_mono_s - load.started_mono_s)
        seen = load.accepted
        accepted = zip(load.done_s[seen].tolist(), load.intended_s[seen].tolist(), load.accepted_ids, strict=True)
        rows = [
            (intended_s, accepted_s, first["start", job_id], first["effect", job_id])
            for accepted_s, intended_s, job_id in sorted(accepted)
            if ("effect", job_id) in first
        ]
        return cls(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)
