"""The two measurements, from outside and the same for all: jobs accepted a second and jobs done a second."""

import contextlib
from collections import defaultdict
from pathlib import Path

import numpy as np

from experiments.bench.peers.comparison import ACCEPTED, DONE
from experiments.bench.peers.job import STAMP
from experiments.bench.peers.libraries import OURS, Contestant, Worker
from experiments.bench.peers.processes import PeerStack, last_line, stack
from experiments.bench.record import Row, figure
from experiments.bench.servers import accepted_per_s, folder_in, submitted, until
from overload_demo.errors import OverloadDemoError

CONNECTIONS = 64
DRAIN_WITHIN_S = 180.0


class Rates:
    """The rates so far, a list for each unit and name, in the order of rounds."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, unit: str, name: str, rate: float) -> None:
        """Add one measurement."""
        self._rates[unit, name].append(round(rate, 1))

    def rows(self) -> list[Row]:
        """Return the rates of this package beside those of each peer."""
        return [
            Row(what=name, unit=unit, ours=self._rates[unit, OURS.name], theirs=theirs)
            for unit in (ACCEPTED, DONE)
            for (its_unit, name), theirs in list(self._rates.items())
            if its_unit == unit and name != OURS.name
        ]


def measure(contestant: Contestant, folder: Path, seconds: float, jobs: int, rates: Rates) -> str:
    """Measure a contestant once, each time on a new store in ``folder``; return the result as text."""
    results = []
    with folder_in(folder) as own, stack(contestant, own) as fresh:
        results.append((ACCEPTED, contestant.about.name, accepted_per_s(fresh.url, CONNECTIONS, seconds)))
    for worker in contestant.about.workers:
        with folder_in(folder) as own, stack(contestant, own) as fresh:
            results.append((DONE, worker.name, _done_per_s(fresh, worker, min(jobs, worker.most_jobs))))
    for result in results:
        rates.add(*result)
    return ", ".join(f"{name} {figure(rate)} {unit}" for unit, name, rate in results)


def rate_of(stamps_ns: list[int]) -> float:
    """Return the completions a second between the first and the last one, in any order."""
    return (len(stamps_ns) - 1) / (max(stamps_ns) - min(stamps_ns)) * 1e9


def _done_per_s(fresh: PeerStack, worker: Worker, jobs: int) -> float:
    """Return the jobs done a second, between the first and the last of ``jobs`` queued before the worker starts."""
    submitted(fresh.url, jobs, CONNECTIONS)
    done = fresh.folder / "done"
    done.touch()
    with fresh.working(worker, done) as process, contextlib.suppress(OverloadDemoError):
        until(lambda: process.poll() is not None or done.stat().st_size >= jobs * STAMP.size, DRAIN_WITHIN_S)
    stamps_ns = np.fromfile(done, dtype=np.int64)
    if stamps_ns.size != jobs:
        last = last_line(fresh.folder / "worker.log")
        raise OverloadDemoError(f"{worker.name} did {stamps_ns.size} of {jobs} jobs; last line of its log: {last}")
    return rate_of(stamps_ns.tolist())
