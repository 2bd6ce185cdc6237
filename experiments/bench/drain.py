"""What a job costs from end to end, and how fast no-op jobs leave: ``python -m experiments.bench.drain``.

Each round has a store of its own: jobs are accepted at 256 connections by our own loader, then one worker with
crash-safe leases does them all. The drain rate is taken between the first and the last progress seen.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.record import Benchmark, Place, Row
from experiments.bench.servers import commands_run, drained, folder_in, our_api, stats, worker
from overload_demo.console import one_line_errors
from overload_demo.errors import OverloadDemoError
from overload_demo.load import LoadPlan, run_load

CONNECTIONS = 256


def main(
    rounds: Annotated[int, typer.Option(help="how often", min=1)] = 5,
    jobs: Annotated[int, typer.Option(help="jobs a round", min=1000)] = 100_000,
    folder: Annotated[Path, typer.Option(help="where the store's data goes for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure drain rate, REST calls and Redis commands a job, and record them."""
    with one_line_errors():
        place = Place.here("experiments.bench.drain", folder)
        seen = [_round(folder, jobs) for _ in range(rounds)]
        rows = [
            Row(
                what="drain rate, no-op jobs, one worker", unit="/s", ours=_all(seen, "rate"), at_least=5000, aim=20_000
            ),
            _cost("REST calls a job accepted at 256 connections", _all(seen, "accepting"), 0.05, 0.01),
            _cost("REST calls a job drained, no-op", _all(seen, "draining"), 0.02, 0.01),
            _cost("Redis commands a job, whole life, those inside scripts counted", _all(seen, "commands"), 8, 5),
            _cost("the same with a script counted as one", _all(seen, "scripts"), None, None),
        ]
        Benchmark(place=place, rows=rows, notes={"jobs a round": jobs}).record("drain")


def _round(parent: Path, jobs: int) -> dict[str, float]:
    with folder_in(parent) as folder, our_api(folder) as (url, _):
        before, of_a_look = commands_run(folder), _cost_of_a_look(folder, url)
        load = asyncio.run(run_load(LoadPlan(url, requests=jobs, connections=CONNECTIONS))).summary()
        if not load.all_accepted:
            raise OverloadDemoError(f"only {load.accepted} of {jobs} were accepted")
        calls_accepting = stats(url)["rest_calls"]
        with worker(folder):
            rate, looks = drained(url)
            calls_draining = stats(url)["rest_calls"] - calls_accepting - looks
        scripts, commands = (after - earlier for after, earlier in zip(commands_run(folder), before, strict=True))
        looks += 12  # ten to learn their cost, and the two above
        return {
            "rate": rate,
            "accepting": (calls_accepting - 10) / jobs,
            "draining": calls_draining / jobs,
            "scripts": (scripts - looks) / jobs,
            "commands": (commands - looks * of_a_look) / jobs,
        }


def _cost_of_a_look(folder: Path, url: str) -> float:
    """Commands that one look at the statistics takes, the script itself counted."""
    _, before = commands_run(folder)
    for _ in range(10):
        stats(url)
    return (commands_run(folder)[1] - before) / 10


def _all(seen: list[dict[str, float]], name: str) -> list[float]:
    return [one[name] for one in seen]


def _cost(what: str, ours: list[float], at_least: float | None, aim: float | None) -> Row:
    return Row(what=what, ours=ours, at_least=at_least, aim=aim, less_is_better=True)


if __name__ == "__main__":
    typer.run(main)
