"""Rates, times and memory by queue depth, API processes and workers: ``python -m experiments.bench.growth``.

Queues from 1,000 to 1,000,000 jobs, each on a new store: acceptance, polls, statistics, drain rate, memory. The time
until the next 202 after ``kill -9`` of the server is measured on a further store of that size.
Then one and two API processes, and one, two and four workers, with no-op jobs and with jobs of a millisecond.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import psutil
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.bench import servers
from experiments.bench.record import RESULTS, Count, Folder, Rounds, Row, recording
from overload_demo.lab import BLUE, GREEN, GREY, ORANGE, PURPLE, Look
from overload_demo.lab.parts import store_processes
from overload_demo.lab.plots.accessible_figure import drawing, note
from overload_demo.load.clients import sample_body

PICTURE = RESULTS / "bench_growth.png"
DIMENSIONS = ("queued", "API processes", "workers")
DEPTHS = (1_000, 10_000, 100_000, 1_000_000)
API_PROCESSES = (1, 2)
WORKERS = (1, 2, 4)
POLLS = 300
CONNECTIONS = 256
ACCEPTING_S = 2.0
WORKING_S = 2.0
JOBS = 60_000

# A colour has one meaning in all panels.
LOOKS: dict[str, Look] = {
    "accepted, jobs/s": {"color": BLUE, "marker": "o"},
    "drained, jobs/s": {"color": GREEN, "marker": "s", "linestyle": (0, (6, 2))},
    "no-op jobs drained, jobs/s": {"color": GREEN},
    "jobs of 1 ms drained, jobs/s": {"color": GREEN, "hatch": "//"},
    "status poll p50, ms": {"color": PURPLE, "marker": "D"},
    "statistics p50, ms": {"color": ORANGE, "marker": "^", "linestyle": (0, (4, 1.5))},
}

Numbers = dict[str, list[float]]
Measure = Callable[[Path, int], dict[str, float]]


def main(rounds: Rounds = 3, deepest: Count = 1_000_000, folder: Folder = Path()) -> None:
    """Measure, record and draw; leave out queues deeper than ``deepest``."""
    with recording("growth", folder) as (rows, _):

        def measured(measure: Measure, counts: tuple[int, ...]) -> dict[int, Numbers]:
            return {count: _repeated(rounds, measure, folder, count) for count in counts}

        by_depth = measured(_at_depth, tuple(depth for depth in DEPTHS if depth <= deepest))
        by_api, by_workers = measured(_with_api_processes, API_PROCESSES), measured(_with_workers, WORKERS)
        rows += [
            Row(what=f"{name}, {count:,} {dimension}", ours=values)
            for dimension, by_count in zip(DIMENSIONS, (by_depth, by_api, by_workers), strict=True)
            for count, numbers in by_count.items()
            for name, values in numbers.items()
        ]
        draw(rows, PICTURE)


def _repeated(rounds: int, measure: Measure, folder: Path, count: int) -> Numbers:
    seen = []
    for _ in range(rounds):
        with servers.folder_in(folder) as own:
            seen.append(measure(own, count))
    return {name: [one[name] for one in seen] for name in seen[0]}


def _at_depth(folder: Path, depth: int) -> dict[str, float]:
    """Measure one API process and one worker on a queue of ``depth`` jobs."""
    with servers.folder_in(folder) as other:
        recovery_s = _recovery_s(other, depth)
    with servers.our_api(folder) as (url, _):
        empty = int(servers.info(folder, "memory")["used_memory"])
        job_ids = asyncio.run(servers.fill(folder, depth))
        held = int(servers.info(folder, "memory")["used_memory"])
        _, poll_s = servers.p50_of(url, f"/jobs/{job_ids[depth // 2]}", times=POLLS)
        _, stats_s = servers.p50_of(url, "/queue/stats", times=POLLS)
        accepted = servers.accepted_per_s(url, CONNECTIONS, ACCEPTING_S)
        redis = psutil.Process(store_processes(folder / "data")["redis"])
        before_s = sum(redis.cpu_times()[:2])
        with servers.worker(folder):
            drained_per_s, _ = servers.drained(url, for_s=WORKING_S)
            cpu_s, done = sum(redis.cpu_times()[:2]) - before_s, servers.stats(url)["done"]
        return {
            "accepted, jobs/s": accepted,
            "drained, jobs/s": drained_per_s,
            "Redis CPU a job drained, µs": 1e6 * cpu_s / done,
            "status poll p50, ms": 1000 * poll_s,
            "statistics p50, ms": 1000 * stats_s,
            "Redis memory, MB": (held - empty) / 1e6,
            "next 202 after kill -9 of Redis, s": recovery_s,
        }


def _recovery_s(folder: Path, depth: int) -> float:
    """Return how long a client waits that posts right after ``kill -9`` of the server."""
    with servers.our_api(folder, OVERLOAD_STORE_DEADLINE_S=60) as (url, _):
        asyncio.run(servers.fill(folder, depth))
        servers.until(lambda: servers.info(folder, "persistence")["aof_rewrite_in_progress"] == "0", within_s=60)
        psutil.Process(store_processes(folder / "data")["redis"]).kill()
        as_json = {"Content-Type": "application/json"}
        return servers.p50_of(url, "/jobs", "POST", sample_body(42), as_json, status=202, times=1)[1]


def _with_api_processes(folder: Path, processes: int) -> dict[str, float]:
    with servers.our_api(folder, processes=processes) as (url, _):
        return {"accepted, jobs/s": servers.accepted_per_s(url, CONNECTIONS, ACCEPTING_S)}


def _with_workers(folder: Path, workers: int) -> dict[str, float]:
    """Measure no-op jobs, then jobs that wait for a millisecond."""
    rates = {}
    with servers.our_api(folder) as (url, _):
        for name, delay_s in (("no-op jobs drained, jobs/s", 0.0), ("jobs of 1 ms drained, jobs/s", 0.001)):
            asyncio.run(servers.fill(folder, JOBS))
            with ExitStack() as stack:
                for number in range(workers):
                    variables = {"WORKER_PROCESSING_DELAY": delay_s, "WORKER_ID": f"bench-{number}"}
                    stack.enter_context(servers.worker(folder, **variables))
                rates[name], _ = servers.drained(url, for_s=WORKING_S)
    return rates


def draw(rows: Sequence[Row], path: Path) -> Figure:
    """Write a PNG of four panels from the recorded rows, and return the figure."""
    by_depth, by_api, by_workers = [_by_count(rows, dimension) for dimension in DIMENSIONS]
    with drawing(2, 2, height=10, width=16) as (drawn, ((rates, costs), (apis, workers))):
        _lines(rates, by_depth, ("accepted, jobs/s", "drained, jobs/s"), "Rates, by length of the queue")
        _lines(costs, by_depth, ("status poll p50, ms", "statistics p50, ms"), "Time of a request, memory of Redis")
        memory = costs.twinx()
        held = [numbers["Redis memory, MB"] for numbers in by_depth.values()]
        memory.plot(list(by_depth), held, "--", color=GREY, marker="o")
        note(memory, "memory of Redis, MB (right)", (10_000, held[1]), (12, -14), color=GREY)
        memory.set(ylabel="MB", yscale="log", ylim=(0.1, 1000))
        memory.grid(False)
        _bars(apis, by_api, "API processes", "Acceptance at 256 connections, by API processes")
        _bars(workers, by_workers, "workers", "Drain, by workers")
    drawn.savefig(path, dpi=100)
    return cast(Figure, drawn)


def _by_count(rows: Sequence[Row], dimension: str) -> dict[int, dict[str, float]]:
    """Return the medians of one dimension: by count, the number of each name."""
    found: dict[int, dict[str, float]] = {}
    for row in rows:
        if match := re.fullmatch(rf"(.+), ([\d,]+) {dimension}", row.what):
            found.setdefault(int(match[2].replace(",", "")), {})[match[1]] = row.value
    return found


def _lines(axes: Axes, by_count: dict[int, dict[str, float]], names: tuple[str, str], title: str) -> None:
    for name in names:
        values = [numbers[name] for numbers in by_count.values()]
        axes.plot(list(by_count), values, label=name, linewidth=3, **LOOKS[name])
    axes.set(xscale="log", xlabel="jobs queued", ylim=(0, 1.1 * axes.get_ylim()[1]))
    axes.set_title(title, pad=34)


def _bars(axes: Axes, by_count: dict[int, dict[str, float]], what: str, title: str) -> None:
    names = list(next(iter(by_count.values())))
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        values = [numbers[name] for numbers in by_count.values()]
        at = [position + (number - (len(names) - 1) / 2) * width for position in range(len(by_count))]
        look = {word: LOOKS[name][word] for word in ("color", "hatch") if word in LOOKS[name]}
        axes.bar_label(axes.bar(at, values, width, label=name, edgecolor="white", **look), fmt="{:,.0f}")
    axes.set_xticks(range(len(by_count)), [f"{count}" for count in by_count])
    axes.set(xlabel=what, ylim=(0, 1.1 * axes.get_ylim()[1]))
    axes.grid(False, axis="x")
    axes.set_title(title, pad=34)


if __name__ == "__main__":
    typer.run(main)
