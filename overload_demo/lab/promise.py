"""What a queue's promise was worth in one spike: each request came to one of four ends."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from overload_demo.errors import ConfigurationError
from overload_demo.lab.accounting import read_effects
from overload_demo.lab.job_log import EFFECTS, JobLog
from overload_demo.lab.result import SpikeResult
from overload_demo.load import LoadResult


@dataclass(frozen=True)
class PromiseRun:
    """A spike and the promise it was held against: *done within* ``promise_s`` *seconds of the 202*.

    ``offered = in_time + late + refused + expired + other``; ``other`` holds what should be 0: failed, lost, no answer.
    ``undone_ids`` are the jobs accepted and never done, in the order of the schedule.
    """

    name: str
    result: SpikeResult
    log: JobLog
    promise_s: float
    undone_ids: tuple[str, ...] = ()

    @classmethod
    def read(cls, name: str, result: SpikeResult, promise_s: float) -> Self:
        """Read the files of a spike in ``result.folder``.

        Raises :class:`ConfigurationError` if the promise is no time above 0.
        """
        if not 0 < promise_s < float("inf"):
            raise ConfigurationError(f"the promise must be a number of seconds above 0, not {promise_s:g}")
        folder = result.folder or Path()
        effects = read_effects(folder / EFFECTS)
        accepted = LoadResult.load(folder / "load.npz").accepted_ids
        undone = tuple(job_id for job_id in accepted if not effects[job_id])
        return cls(name, result, JobLog.read(folder), promise_s, undone)

    @cached_property
    def in_time(self) -> int:
        """Jobs whose result was there within the promise: the goodput."""
        return int(np.count_nonzero(self.log.done_s - self.log.accepted_s <= self.promise_s))

    @property
    def late(self) -> int:
        """Jobs done when the promise was broken already."""
        return self.log.done_s.size - self.in_time

    @property
    def refused(self) -> int:
        """Requests that were told at once, with a 429, that there is no room."""
        return self.result.errors.get("status 429", 0)

    @property
    def expired(self) -> int:
        """Jobs that did not start by their deadline and were never run."""
        return self.result.expired

    @property
    def other(self) -> int:
        """Whatever is left."""
        return self.result.offered - self.in_time - self.late - self.refused - self.expired

    @property
    def refused_share(self) -> float:
        """Refused of offered, 0 to 1."""
        return self.refused / self.result.offered

    @property
    def oldest_age_s(self) -> float:
        """The oldest that the job at the head of the queue was seen, seconds."""
        return max(self.result.series.oldest_age_s, default=0.0)
