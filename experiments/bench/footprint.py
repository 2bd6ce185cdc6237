"""What a job takes in the store, in memory and on disk: ``python -m experiments.bench.footprint``.

100,000 jobs of the sample body are accepted while nobody works; then one worker does them all, and the append-only file
is rewritten as its server sees fit.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.record import Benchmark, Place, Row
from experiments.bench.servers import folder_in, info, our_api, stats, until, worker
from overload_demo.console import one_line_errors
from overload_demo.errors import OverloadDemoError
from overload_demo.load import LoadPlan, run_load

MEGABYTE = 1_000_000


def main(
    rounds: Annotated[int, typer.Option(help="how often", min=1)] = 5,
    jobs: Annotated[int, typer.Option(help="jobs a round", min=1000)] = 100_000,
    folder: Annotated[Path, typer.Option(help="where the store's data goes for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure memory and file a job, and record them."""
    with one_line_errors():
        place = Place.here("experiments.bench.footprint", folder)
        seen = [_round(folder, jobs) for _ in range(rounds)]
        bounds = {"queued": (450.0, 300.0)}
        names = {
            "queued": "memory a queued job in the embedded Redis",
            "done": "memory a finished job, its result kept",
            "file queued": "append-only file a job, when all are queued",
            "file done": "append-only file a job, when all are done (rewrites included)",
        }
        rows = [
            Row(
                what=what,
                unit="bytes",
                ours=[one[name] for one in seen],
                at_least=bounds.get(name, (None, None))[0],
                aim=bounds.get(name, (None, None))[1],
                less_is_better=True,
            )
            for name, what in names.items()
        ]
        notes: dict[str, float | str] = {
            "jobs a round": jobs,
            "rewrites of the file a round": ", ".join(f"{one['rewrites']:.0f}" for one in seen),
            "server": f"{seen[0]['version']}",
        }
        Benchmark(place=place, rows=rows, notes=notes).record("footprint")


def _round(parent: Path, jobs: int) -> dict[str, float | str]:
    with folder_in(parent) as folder, our_api(folder) as (url, _):
        before = int(info(folder, "memory")["used_memory"])
        load = asyncio.run(run_load(LoadPlan(url, requests=jobs, connections=256))).summary()
        if not load.all_accepted:
            raise OverloadDemoError(f"only {load.accepted} of {jobs} were accepted")
        queued = int(info(folder, "memory")["used_memory"])
        file_queued = int(info(folder, "persistence")["aof_current_size"])
        with worker(folder):
            until(lambda: stats(url)["done"] == jobs, within_s=120)
        until(lambda: info(folder, "persistence")["aof_rewrite_in_progress"] == "0", within_s=60)
        done, persistence = int(info(folder, "memory")["used_memory"]), info(folder, "persistence")
        return {
            "queued": (queued - before) / jobs,
            "done": (done - before) / jobs,
            "file queued": file_queued / jobs,
            "file done": int(persistence["aof_current_size"]) / jobs,
            "rewrites": int(persistence["aof_rewrites"]),
            "version": info(folder, "server").get("valkey_version", ""),
        }


if __name__ == "__main__":
    typer.run(main)
