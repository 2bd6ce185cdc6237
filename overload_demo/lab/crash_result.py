"""What came of a spike with kills, as a model that is saved: from clients' arrays, effect log and ledger."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from overload_demo.lab.job_log import JobEvent, read_events
from overload_demo.lab.ledger import ledger_of, read_charges
from overload_demo.lab.result import SpikeResult
from overload_demo.load import LoadResult
from overload_demo.load.plan import Floats

BUCKET_S = 0.1
NEAR_KILL_S = 0.25  # a silence that a kill caused begins within this
SHOWN_BEFORE_AND_AFTER = 25  # jobs in the picture of a kill


class KillSeen(BaseModel):
    """One kill, and what the logs say of it; seconds since the first intended send.

    ``back_s``: from the kill to the end of the silence it caused: the next start of a job (a worker was killed) or the
    next 202 (anything else); None when there was none any more. Of a worker: ``held`` jobs were leased to it and their
    results not stored, so they were leased again; ``again`` of them had been started before the kill. Both are 0 where
    no interrupted job is repeated.
    """

    model_config = ConfigDict(frozen=True)

    part: str
    at_s: float
    back_s: float | None
    held: int = 0
    again: int = 0


class Run(BaseModel):
    """One attempt at a job; ``ended_s`` is when its work was done, None when it was interrupted."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    started_s: float
    ended_s: float | None


class JobRuns(BaseModel):
    """One job from its 202 on, and its attempts."""

    model_config = ConfigDict(frozen=True)

    accepted_s: float
    runs: list[Run]


class Charges(BaseModel):
    """How often the accepted jobs were charged, by the ledger: never, once, more than once. Counts of jobs."""

    model_config = ConfigDict(frozen=True)

    never: int
    once: int
    more: int


class CrashResult(BaseModel):
    """A spike with kills. ``charges`` is None when the handler kept no ledger.

    ``lives`` are the jobs around the first kill of a worker, in the order they were first started. Rates are per
    second, in buckets of ``bucket_s`` that begin at 0.
    """

    model_config = ConfigDict(frozen=True)

    spike: SpikeResult
    kills: list[KillSeen]
    charges: Charges | None
    bucket_s: float
    accepted_per_s: list[float]
    done_per_s: list[float]
    lives: list[JobRuns]

    @property
    def longest_silence_s(self) -> float:
        """The longest ``back_s`` of its kills, seconds; 0.0 without any."""
        return max((kill.back_s or 0.0 for kill in self.kills), default=0.0)

    @property
    def failed_but_charged(self) -> int:
        """Jobs that are reported as failed and were charged all the same; a job never charged is a failed one."""
        return self.spike.failed - self.charges.never if self.charges else 0

    def save(self, folder: Path) -> Path:
        """Write ``crash.json`` into ``folder``."""
        path = folder / "crash.json"
        path.write_text(self.model_dump_json(indent=1) + "\n")
        return path

    @classmethod
    def read(cls, path: Path) -> "CrashResult":
        """Read a ``crash.json``. Raises pydantic's ValidationError when it is not one."""
        found = cls.model_validate_json(path.read_bytes())
        return found.model_copy(update={"spike": found.spike.model_copy(update={"folder": path.parent})})


def account_for(folder: Path, effect_log: Path, spike: SpikeResult, kills: Sequence[tuple[str, float]]) -> CrashResult:
    """Put together what a run has left behind; ``kills`` are (part, CLOCK_MONOTONIC seconds) in time order."""
    load = LoadResult.load(folder / "load.npz")
    log = _Log(list(read_events(effect_log)), load)
    seen = [(part, at_mono_s - load.started_mono_s) for part, at_mono_s in kills]
    ends_s = [at_s for _, at_s in seen[1:]] + [float("inf")]
    answered_s = np.sort(load.done_s[load.accepted])
    done_s = np.array([run.ended_s for runs in log.runs.values() for run in runs[-1:] if run.ended_s is not None])
    last_s = max(float(done_s.max(initial=0.0)), float(answered_s.max(initial=0.0)))
    edges_s = np.arange(int(last_s / BUCKET_S) + 2) * BUCKET_S
    workers = [at_s for part, at_s in seen if part == "worker"]
    ledger = ledger_of(effect_log)
    return CrashResult(
        spike=spike,
        kills=[log.kill(part, at_s, end_s, answered_s) for (part, at_s), end_s in zip(seen, ends_s, strict=False)],
        charges=_charges(load.accepted_ids, read_charges(ledger)) if ledger.exists() else None,
        bucket_s=BUCKET_S,
        accepted_per_s=(np.histogram(answered_s, edges_s)[0] / BUCKET_S).round(3).tolist(),
        done_per_s=(np.histogram(done_s, edges_s)[0] / BUCKET_S).round(3).tolist(),
        lives=log.lives(workers[0]) if workers else [],
    )


def _charges(accepted: Sequence[str], charged: Mapping[str, int]) -> Charges:
    times = [charged.get(job_id, 0) for job_id in accepted]
    return Charges(never=times.count(0), once=times.count(1), more=sum(time > 1 for time in times))


@dataclass(frozen=True)
class _Start:
    job_id: str
    attempt: int
    at_s: float


class _Log:
    """An effect log, job by job, on the clock of the load."""

    def __init__(self, events: Sequence[JobEvent], load: LoadResult) -> None:
        zero_s = load.started_mono_s
        ends = {(event.job_id, event.attempt): event.at_mono_s - zero_s for event in events if event.what == "effect"}
        self.starts = [
            _Start(event.job_id, event.attempt, event.at_mono_s - zero_s) for event in events if event.what == "start"
        ]
        self.runs: dict[str, list[Run]] = defaultdict(list)
        for start in self.starts:
            self.runs[start.job_id].append(
                Run(attempt=start.attempt, started_s=start.at_s, ended_s=ends.get((start.job_id, start.attempt)))
            )
        self.accepted_s = dict(zip(load.accepted_ids, load.done_s[load.accepted].tolist(), strict=True))

    def kill(self, part: str, at_s: float, until_s: float, answered_s: Floats) -> KillSeen:
        """One kill; the logs are read up to the next one."""
        if part != "worker":
            return KillSeen(part=part, at_s=at_s, back_s=_back_s(answered_s.tolist(), at_s))
        held = self._held(at_s, until_s)
        return KillSeen(
            part=part,
            at_s=at_s,
            back_s=_back_s([start.at_s for start in self.starts], at_s),
            held=len(held),
            again=sum(self.runs[job_id][0].started_s < at_s for job_id in held),
        )

    def _held(self, at_s: float, until_s: float = float("inf")) -> set[str]:
        """Jobs that were leased before the kill and leased again after it: a lease that was lost counts an attempt."""
        seen = {start.job_id: start.attempt for start in self.starts if start.at_s < at_s}
        return {
            start.job_id
            for start in self.starts
            if at_s < start.at_s < until_s and start.attempt > max(1, seen.get(start.job_id, 0))
        }

    def lives(self, at_s: float) -> list[JobRuns]:
        """Jobs around a kill, in the order they were first started."""
        order = [job_id for job_id in self.runs if job_id in self.accepted_s]
        place = bisect_left([self.runs[job_id][0].started_s for job_id in order], at_s)
        around = order[max(0, place - SHOWN_BEFORE_AND_AFTER) : place + SHOWN_BEFORE_AND_AFTER]
        return [JobRuns(accepted_s=self.accepted_s[job_id], runs=self.runs[job_id]) for job_id in around]


def _back_s(times_s: Sequence[float], at_s: float) -> float | None:
    """From the kill to the end of the longest silence that it met or that began soon after it."""
    first = max(0, bisect_right(times_s, at_s) - 1)
    last = bisect_right(times_s, at_s + NEAR_KILL_S)
    silences = [
        (after - max(before, at_s), after - at_s)
        for before, after in zip(times_s[first:last], times_s[first + 1 : last + 1], strict=False)
        if after > at_s
    ]
    return round(max(silences)[1], 4) if silences else None
