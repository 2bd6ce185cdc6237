"""How it grows: with the queue, with API processes, with workers: ``python -m experiments.bench.growth``.

Four queues from 1,000 to 1,000,000 jobs, each on a store of its own: what is accepted, what a poll and the statistics
cost, how fast no-op jobs leave, and what Redis holds. Then one and two API processes, and one, two and four workers,
with jobs that cost nothing and jobs that take a millisecond.
"""

import asyncio
import shutil
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import psutil
import typer
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from experiments.bench.acceptance import by_own_loader, by_wrk
from experiments.bench.record import RESULTS, Benchmark, Place, Row
from experiments.bench.servers import drained, fill, folder_in, info, our_api, p50_of, stats, store_processes, worker
from overload_demo.console import one_line_errors
from overload_demo.lab.colours import BLUE, GREY, ORANGE
from overload_demo.lab.plots.accessible_figure import drawing

DEPTHS = (1_000, 10_000, 100_000, 1_000_000)
API_PROCESSES = (1, 2)
WORKERS = (1, 2, 4)
MEGABYTE = 1_000_000
POLLS = 300
CONNECTIONS = 256
ACCEPTING_S = 2.0
WORKING_S = 2.0
ENOUGH_JOBS = 60_000

Numbers = dict[str, list[float]]
Measure = Callable[[Path, int], dict[str, float]]


def main(
    rounds: Annotated[int, typer.Option(help="how often", min=1)] = 3,
    deepest: Annotated[int, typer.Option(help="leave out queues deeper than this", min=1000)] = 1_000_000,
    folder: Annotated[Path, typer.Option(help="where the stores' data goes for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure, record and draw."""
    with one_line_errors():
        place = Place.here("experiments.bench.growth", folder)
        by_depth = {depth: _gathered(rounds, _at_depth, folder, depth) for depth in DEPTHS if depth <= deepest}
        by_api = {count: _gathered(rounds, _with_api_processes, folder, count) for count in API_PROCESSES}
        by_workers = {count: _gathered(rounds, _with_workers, folder, count) for count in WORKERS}
        rows = [
            *_rows(by_depth, "queued"),
            *_rows(by_api, "API processes"),
            *_rows(by_workers, "workers"),
        ]
        _draw(RESULTS / "bench_growth.png", by_depth, by_api, by_workers)
        Benchmark(place=place, rows=rows, notes={"fsync p50, ms": place.fsync_p50_ms}).record("growth")


def _gathered(rounds: int, measure: Measure, folder: Path, count: int) -> Numbers:
    """Each number of so many rounds."""
    seen = []
    for _ in range(rounds):
        with folder_in(folder) as own:
            seen.append(measure(own, count))
    return {name: [one[name] for one in seen] for name in seen[0]}


def _at_depth(folder: Path, depth: int) -> dict[str, float]:
    """One API process and one worker on a queue of ``depth`` jobs."""
    with our_api(folder) as (url, _):
        empty = int(info(folder, "memory")["used_memory"])
        job_ids = asyncio.run(fill(folder, depth))
        held = int(info(folder, "memory")["used_memory"])
        _, poll_s = p50_of(url, f"/jobs/{job_ids[depth // 2]}", times=POLLS)
        _, stats_s = p50_of(url, "/queue/stats", times=POLLS)
        accepted_per_s = _accepted_per_s(url)
        redis = psutil.Process(store_processes(folder)["redis"])
        before = redis.cpu_times()
        with worker(folder):
            drained_per_s = _drained_per_s(url)
            after, done = redis.cpu_times(), stats(url)["done"]
        return {
            "accepted, jobs/s": accepted_per_s,
            "drained, jobs/s": drained_per_s,
            "Redis CPU a job drained, µs": 1e6 * (after.user + after.system - before.user - before.system) / done,
            "status poll p50, ms": 1000 * poll_s,
            "statistics p50, ms": 1000 * stats_s,
            "Redis memory, MB": (held - empty) / MEGABYTE,
        }


def _with_api_processes(folder: Path, processes: int) -> dict[str, float]:
    with our_api(folder, processes=processes) as (url, _):
        return {"accepted, jobs/s": _accepted_per_s(url)}


def _with_workers(folder: Path, workers: int) -> dict[str, float]:
    """No-op jobs, then jobs that wait for a millisecond, with so many workers."""
    drained = {}
    with our_api(folder) as (url, _):
        for name, delay_s in (("no-op jobs drained, jobs/s", 0.0), ("jobs of 1 ms drained, jobs/s", 0.001)):
            asyncio.run(fill(folder, ENOUGH_JOBS))
            with ExitStack() as stack:
                for number in range(workers):
                    variables = {"WORKER_PROCESSING_DELAY": delay_s, "WORKER_ID": f"bench-{number}"}
                    stack.enter_context(worker(folder, **variables))
                drained[name] = _drained_per_s(url)
    return drained


def _accepted_per_s(url: str) -> float:
    load = by_wrk if shutil.which("wrk") else by_own_loader
    return load(url, CONNECTIONS, ACCEPTING_S)


def _drained_per_s(url: str) -> float:
    return drained(url, for_s=WORKING_S)[0]


def _rows(by_count: dict[int, Numbers], of_what: str) -> list[Row]:
    return [
        Row(what=f"{name}, {count:,} {of_what}", ours=values)
        for count, numbers in by_count.items()
        for name, values in numbers.items()
    ]


def _draw(path: Path, by_depth: dict[int, Numbers], by_api: dict[int, Numbers], by_workers: dict[int, Numbers]) -> None:
    with drawing(2, 2, height=10, width=16) as (drawn, ((rates, costs), (apis, workers))):
        _lines(rates, by_depth, ["accepted, jobs/s", "drained, jobs/s"], "Rates, by length of the queue")
        _lines(costs, by_depth, ["status poll p50, ms", "statistics p50, ms"], "What a look costs, what Redis holds")
        memory = costs.twinx()
        held = [statistics.median(numbers["Redis memory, MB"]) for numbers in by_depth.values()]
        memory.plot(list(by_depth), held, "--", color=GREY, marker="o", label="Redis memory, MB (right)")
        memory.set(ylabel="MB", yscale="log", ylim=(0.1, 1000))
        memory.grid(False)
        memory.legend(loc="lower right")
        _bars(apis, by_api, "API processes", "Acceptance at 256 connections, by API processes")
        _bars(workers, by_workers, "workers", "Drain, by workers")
        drawn.savefig(path, dpi=100)


def _lines(axes: Axes, by_count: dict[int, Numbers], names: Sequence[str], title: str) -> None:
    for name, colour in zip(names, (BLUE, ORANGE), strict=True):
        middle = [statistics.median(numbers[name]) for numbers in by_count.values()]
        axes.plot(list(by_count), middle, marker="o", label=name, color=colour, linewidth=3)
    axes.set(xscale="log", xlabel="jobs queued")
    axes.set_ylim(bottom=0, top=1.35 * axes.get_ylim()[1])
    axes.set_title(title, loc="left")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.legend(loc="upper left")


def _bars(axes: Axes, by_count: dict[int, Numbers], what: str, title: str) -> None:
    names = list(next(iter(by_count.values())))
    width = 0.8 / len(names)
    for number, (name, colour) in enumerate(zip(names, (BLUE, ORANGE), strict=False)):
        middle = [statistics.median(numbers[name]) for numbers in by_count.values()]
        at = [position + (number - (len(names) - 1) / 2) * width for position in range(len(by_count))]
        axes.bar_label(axes.bar(at, middle, width, label=name, color=colour), fmt="{:,.0f}")
    axes.set_xticks(range(len(by_count)), [f"{count}" for count in by_count])
    axes.set(xlabel=what)
    axes.set_ylim(top=1.4 * axes.get_ylim()[1])
    axes.grid(False, axis="x")
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.legend(loc="upper left")


if __name__ == "__main__":
    typer.run(main)
