"""The two measurements, from outside and the same for all: how fast jobs are taken in, and how fast they get done."""

import asyncio
import contextlib
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from experiments.bench.peers.comparison import ACCEPTED, DONE, Recorded
from experiments.bench.peers.environments import Contestant
from experiments.bench.peers.job import STAMP
from experiments.bench.peers.libraries import OURS, Worker
from experiments.bench.peers.processes import Stack, last_line, stack
from experiments.bench.record import Row, figure
from experiments.bench.servers import posting, until, wrk
from overload_demo.errors import OverloadDemoError
from overload_demo.load import LoadPlan, run_load

CONNECTIONS = 64
MOST_PER_S = 50_000
DRAIN_WITHIN_S = 180.0
LOOK_EVERY_S = 0.05


class Rates:
    """What was measured so far, a list for each unit and name; its order is that of the rounds."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, unit: str, name: str, rate: float) -> None:
        """Note one measurement."""
        self._rates[unit, name].append(round(rate, 1))

    def rows(self) -> list[Row]:
        """Ours beside each peer's, in the order of rounds."""
        rows = []
        for unit in (ACCEPTED, DONE):
            ours = self._rates[unit, OURS.name]
            for (its_unit, name), theirs in self._rates.items():
                if its_unit == unit and name != OURS.name:
                    rows.append(Row(what=name, unit=unit, ours=ours, theirs=theirs))
        return rows


class Meter:
    """Measures one contestant after the other, each time on a new store in ``folder``."""

    def __init__(self, folder: Path, seconds: float, jobs: int) -> None:
        self._folder, self._seconds, self._jobs = folder, seconds, jobs

    def measure(self, contestant: Contestant, rates: Rates) -> str:
        """Measure once what is to be measured of a contestant; returns what came of it, in words."""
        told = []
        with tempfile.TemporaryDirectory(dir=self._folder) as folder, stack(contestant, Path(folder)) as fresh:
            rate = _accepted_per_s(fresh.url, self._seconds)
            rates.add(ACCEPTED, contestant.about.name, rate)
            told.append(f"{contestant.about.name} {figure(rate)} {ACCEPTED}")
        for worker in contestant.about.workers:
            with tempfile.TemporaryDirectory(dir=self._folder) as folder, stack(contestant, Path(folder)) as fresh:
                rate = _done_per_s(fresh, worker, self._jobs_for(worker))
                rates.add(DONE, worker.name, rate)
                told.append(f"{worker.name} {figure(rate)} {DONE}")
        return ", ".join(told)

    def recorded(self, contestants: list[Contestant]) -> list[Recorded]:
        """What is recorded of the contestants."""
        return [
            Recorded(
                about=contestant.about,
                versions=contestant.versions,
                jobs={worker.name: self._jobs_for(worker) for worker in contestant.about.workers},
            )
            for contestant in contestants
        ]

    def _jobs_for(self, worker: Worker) -> int:
        return min(self._jobs, worker.most_jobs)


def _accepted_per_s(url: str, seconds: float) -> float:
    """Jobs accepted a second by 64 connections, with nobody doing them."""
    if shutil.which("wrk"):
        return wrk(f"{url}/jobs", CONNECTIONS, seconds, posting())
    return _submit(LoadPlan(url, round(MOST_PER_S * seconds), connections=CONNECTIONS, max_duration_s=seconds))


def _done_per_s(fresh: Stack, worker: Worker, jobs: int) -> float:
    """Jobs done a second between the first and the last of ``jobs`` that wait when the worker is started."""
    _submit(LoadPlan(fresh.url, jobs, connections=CONNECTIONS))
    done = fresh.folder / "done"
    done.touch()
    with fresh.working(worker, done) as process, contextlib.suppress(OverloadDemoError):
        until(lambda: process.poll() is not None or _count(done) >= jobs, DRAIN_WITHIN_S, LOOK_EVERY_S)
    stamps_ns = np.fromfile(done, dtype=np.int64)
    if stamps_ns.size != jobs:
        said = last_line(fresh.folder / "worker.log")
        raise OverloadDemoError(f"{worker.name} did {stamps_ns.size} of {jobs} jobs; it said: {said}")
    return rate_of(stamps_ns.tolist())


def _count(done: Path) -> int:
    return done.stat().st_size // STAMP.size


def rate_of(stamps_ns: list[int]) -> float:
    """Completions a second between the first and the last one, in whatever order they were written."""
    return (len(stamps_ns) - 1) / (max(stamps_ns) - min(stamps_ns)) * 1e9


def _submit(plan: LoadPlan) -> float:
    """Fire a load; returns how much was accepted a second. Raises :class:`OverloadDemoError` unless all was."""
    summary = asyncio.run(run_load(plan)).summary()
    if not summary.all_accepted:
        raise OverloadDemoError(f"{plan.url} did not accept all: {summary.failures}")
    return summary.accepted_per_s
