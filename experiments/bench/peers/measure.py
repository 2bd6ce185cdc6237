"""The measurements, from outside and the same for all libraries."""

import asyncio
import contextlib
import json
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

import numpy as np

from experiments.bench.peers.comparison import ACCEPTED, CONNECTIONS, DONE, IDLE, LESS_IS_BETTER, MIXED, MIXED_P99
from experiments.bench.peers.job import HOLD, STAMP
from experiments.bench.peers.libraries import OURS, Contestant, Worker
from experiments.bench.peers.processes import PeerStack, last_line, stack
from experiments.bench.record import Row
from experiments.bench.servers import accepted_per_s, folder_in, p50_of, submitted, until, wrk_with_p99
from overload_demo.errors import OverloadDemoError
from overload_demo.lab import about
from overload_demo.load import LoadPlan, run_load
from overload_demo.load.clients import sample_body

WITHIN_S = 90.0
WARM_UP_S = 2.0  # a new Node process is several times slower in its first second (measured)
AS_JSON = {"Content-Type": "application/json"}
POLLED_JOBS = 1_000  # finished ones, and as many queued ones
IDLE_S = 5.0  # between two jobs of the same stack: as long as the longest pause of any worker's polls


class Measure(StrEnum):
    """What can be measured."""

    ACCEPTANCE = "acceptance"
    DRAIN = "drain"
    MIXED = "mixed"
    IDLE = "idle"

    def fits(self, contestant: Contestant) -> bool:
        """Whether a library has what it needs."""
        if self is Measure.MIXED:
            return contestant.about.polls and shutil.which("wrk") is not None
        return self is Measure.ACCEPTANCE or bool(contestant.about.workers)


Result = tuple[str, str, float]  # unit, row, value


def library_of(result: Result) -> str:
    """Return the name of the library that a result is of."""
    return result[1].partition(":")[0]


def rows_of(results: list[Result]) -> list[Row]:
    """Return the values of this package beside those of each peer, in the order of rounds."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for unit, name, value in results:
        values[unit, name].append(round(value, 2))
    ours = {unit: own for (unit, name), own in values.items() if name.partition(":")[0] == OURS.name}
    return [
        Row(what=name, unit=unit, ours=ours[unit], theirs=theirs, less_is_better=unit in LESS_IS_BETTER)
        for (unit, name), theirs in values.items()
        if name.partition(":")[0] != OURS.name
    ]


def measure(what: Measure, contestant: Contestant, folder: Path, seconds: float, jobs: int) -> Iterator[Result]:
    """Measure a contestant once, each time on a new store in ``folder``."""
    about = contestant.about
    if what is Measure.DRAIN:
        for worker in about.workers:
            with folder_in(folder) as own, stack(contestant, own) as fresh:
                yield DONE, about.row(worker), _done_per_s(fresh, worker, min(jobs, worker.most_jobs))
        return
    with folder_in(folder) as own, stack(contestant, own) as fresh:
        if what is Measure.ACCEPTANCE:
            accepted_per_s(fresh.url, CONNECTIONS[0], WARM_UP_S)
            for unit, connections in zip(ACCEPTED, CONNECTIONS, strict=True):
                yield unit, about.name, accepted_per_s(fresh.url, connections, seconds)
        else:
            rate, p99_s = _mixed(fresh, seconds)
            yield MIXED, about.name, rate
            yield MIXED_P99, about.name, p99_s * 1000


def idle(contestants: list[Contestant], folder: Path, tries: int) -> Iterator[Result]:
    """Measure how long one job takes that is posted to an idle stack, in turn over all stacks, which all run."""
    with contextlib.ExitStack() as running:
        stacks = []
        for contestant in contestants:
            own = running.enter_context(folder_in(folder))
            stacks.append(running.enter_context(stack(contestant, own)))
            running.enter_context(stacks[-1].working(contestant.about.workers[0]))
        for _ in range(tries):
            for one in stacks:
                time.sleep(random.uniform(0.5, 1.5) * IDLE_S / len(stacks))  # in no phase with a worker's polls
                yield IDLE, one.contestant.about.name, _post_to_done_ms(one)


def in_turns(
    contestants: list[Contestant], rounds: int, measure_one: Callable[[Contestant], Iterator[Result]]
) -> list[Result]:
    """Return the results of all rounds; a library whose measurement fails is left out, and the reason is printed."""
    results: list[Result] = []
    for number in range(rounds):
        turn = number % len(contestants)  # no library always runs first, or after the same one
        for contestant in contestants[turn:] + contestants[:turn]:
            try:
                results += printed(measure_one(contestant))
            except OverloadDemoError as error:
                name = contestant.about.name
                if name == OURS.name:
                    raise
                print(f"{name} is left out: {error}", flush=True)
                contestants.remove(contestant)
                results = [result for result in results if library_of(result) != name]
    return results


def printed(results: Iterator[Result]) -> Iterator[Result]:
    """Print each result as it comes."""
    for unit, name, value in results:
        print(f"{name} {about(value)} {unit}", flush=True)
        yield unit, name, value


def rate_of(stamps_ns: list[int]) -> float:
    """Return the completions a second between the first and the last one, in any order."""
    return (len(stamps_ns) - 1) / (max(stamps_ns) - min(stamps_ns)) * 1e9


def _post_to_done_ms(idle_one: PeerStack) -> float:
    """Post a job; return the time until it has run, milliseconds."""
    before, since_ns = idle_one.done.stat().st_size, time.monotonic_ns()
    p50_of(idle_one.url, "/jobs", "POST", sample_body(42), AS_JSON, status=202, times=1)
    until(lambda: idle_one.done.stat().st_size > before, WITHIN_S, every_s=0.001)
    (done_ns,) = STAMP.unpack(idle_one.done.read_bytes()[-STAMP.size :])
    return float(done_ns - since_ns) / 1e6


def _done_per_s(fresh: PeerStack, worker: Worker, jobs: int) -> float:
    """Return the jobs done a second, between the first and the last of ``jobs`` queued before the worker starts."""
    submitted(fresh.url, jobs, CONNECTIONS[0])
    with fresh.working(worker):
        _wait_for_jobs(fresh, jobs)
    return rate_of(np.fromfile(fresh.done, dtype=np.int64).tolist())


def _wait_for_jobs(fresh: PeerStack, jobs: int) -> None:
    """Return once the worker has done so many jobs. Raises :class:`OverloadDemoError` with the end of its log."""
    with contextlib.suppress(OverloadDemoError):
        until(lambda: fresh.done.stat().st_size >= jobs * STAMP.size, WITHIN_S)
    if (done := fresh.done.stat().st_size // STAMP.size) != jobs:
        name, last = fresh.contestant.about.name, last_line(fresh.folder / "worker.log")
        raise OverloadDemoError(f"{name} did {done} of {jobs} jobs; last line of its log: {last}")


def _mixed(fresh: PeerStack, seconds: float) -> tuple[float, float]:
    """Return requests a second and their p99 in seconds: one POST to five polls, of jobs in three states in turn.

    A worker has finished the first jobs, runs one, and the others wait behind it.
    """

    def post(jobs: int) -> list[str]:
        return asyncio.run(run_load(LoadPlan(fresh.url, requests=jobs, connections=CONNECTIONS[0]))).accepted_ids

    one_at_a_time = next(worker for worker in fresh.contestant.about.workers if worker.at_once == 1)
    with fresh.working(one_at_a_time) as worker:
        finished = post(POLLED_JOBS)
        _wait_for_jobs(fresh, len(finished))
        held = json.dumps({"name": "held", "value": 1, "message": HOLD}).encode()
        body, _ = p50_of(fresh.url, "/jobs", "POST", held, AS_JSON, status=202, times=1)
        _wait_for_jobs(fresh, len(finished) + 1)
        states = [finished, [json.loads(body)["job_id"]], post(POLLED_JOBS)]
        script = _one_post_to_five_polls(sample_body(42).decode(), states)
        wrk_with_p99(fresh.url, CONNECTIONS[1], WARM_UP_S, script)
        measured = wrk_with_p99(fresh.url, CONNECTIONS[1], seconds, script)
        worker.kill()  # its job would hold it for a minute
    return measured


def _one_post_to_five_polls(body: str, states: list[list[str]]) -> str:
    """Return a wrk script: each sixth request posts ``body``, the others poll a job of each list in turn."""
    lists = ", ".join("{" + ", ".join(f'"{job_id}"' for job_id in job_ids) + "}" for job_ids in states)
    return f"""
        local states, sent, headers = {{{lists}}}, 0, {{["Content-Type"] = "application/json"}}
        function request()
            sent = sent + 1
            if sent % 6 == 0 then return wrk.format("POST", "/jobs", headers, {json.dumps(body)}) end
            local jobs = states[(sent - math.floor(sent / 6)) % #states + 1]
            return wrk.format("GET", "/jobs/" .. jobs[math.random(#jobs)])
        end
    """
