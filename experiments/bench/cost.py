"""Cost of a job on Upstash, beside the plain recipe: ``python -m experiments.bench.cost``.

Both run without work in a job, each on a separate store behind a simulated round trip: 64 clients post, one worker
drains, and every job is polled once. The simulated database counts exchanges and commands. The plain recipe gets fewer
jobs, because it drains a few a second. At the end each worker idles for a while.
"""

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import typer

from experiments.bench.record import Count, Folder, Rounds, Row, Seconds, recording
from experiments.bench.servers import commands_run, environment, folder_in, get, our_api, program, uvicorn
from overload_demo.errors import OverloadDemoError
from overload_demo.lab.report import FREE_COMMANDS_PER_MONTH, PRICE_PER_100K_COMMANDS
from overload_demo.lab.simulated_cloud import far_store
from overload_demo.load import LoadPlan, run_load

CLIENTS = 64
DRAIN_WITHIN_S = 600.0
SETTLED_S = 240.0  # by then an idle worker sleeps for its longest time
MONTH_S = 30 * 86_400
OURS, PLAIN = "overload_demo.worker", "experiments.bench.plain_recipe"


def main(
    pairs: Rounds = 5,
    jobs: Count = 5_000,
    plain_jobs: Count = 200,
    round_trip: Seconds = 0.05,
    idle: Seconds = 360.0,
    folder: Folder = Path(),
) -> None:
    """Measure both in turn, so many jobs each, ``round_trip`` seconds away and idle for ``idle`` seconds; record it."""
    with recording("cost", folder) as (rows, notes):
        sizes = ((OURS, jobs), (PLAIN, plain_jobs))
        measured = [[_round(folder, kind, count, round_trip) for kind, count in sizes] for _ in range(pairs)]
        away = f"jobs/s, {round_trip * 1000:g} ms away"
        whats = {
            "calls": "REST calls a job",
            "least commands": "commands a job, a script counted as one",
            "most commands": "commands a job, those inside scripts counted",
            "accepted": f"accepted, {away}",
            "drained": f"drained by one worker, {away}",
        }
        for name, what in whats.items():
            pairs_of_one = [(ours[name], plain[name]) for ours, plain in measured]
            rows.append(Row.of_pairs(what, pairs_of_one, less_is_better=not what.endswith("away")))
        counts = zip(_idle(folder, OURS, idle), _idle(folder, PLAIN, idle), strict=True)
        for what, pair in zip(("a script counted as one", "those inside scripts counted"), counts, strict=True):
            rows.append(Row.of_pairs(f"commands of an idle worker in a month, {what}", [pair], less_is_better=True))
        notes |= {"clients": CLIENTS, "free commands a month": FREE_COMMANDS_PER_MONTH}
        notes["dollars for 100,000 commands"] = PRICE_PER_100K_COMMANDS


def _round(folder: Path, kind: str, jobs: int, round_trip_s: float) -> dict[str, float]:
    """Measure one of the two; rates are in jobs a second, the rest is for one job."""
    with folder_in(folder) as place, far_store(place / "data", round_trip_s) as cloud:
        api = our_api(place, **cloud.variables) if kind == OURS else uvicorn(f"{PLAIN}:app", place, **cloud.variables)
        with api as (url, _):
            calls, sent, (_, commands) = cloud.exchanges, cloud.commands, commands_run(place)
            load = asyncio.run(run_load(LoadPlan(url, requests=jobs, connections=CLIENTS)))
            if len(load.accepted_ids) != jobs:
                raise OverloadDemoError(f"not all of {jobs:,} were accepted: {load.summary().failures}")
            since = time.monotonic()
            command = [sys.executable, "-m", kind, "--until-empty"]
            subprocess.run(command, env=environment(place, **cloud.variables), check=True, timeout=DRAIN_WITHIN_S)
            drained_s = time.monotonic() - since
            with ThreadPoolExecutor(CLIENTS) as clients:
                bodies = list(clients.map(lambda job_id: get(url, f"/jobs/{job_id}"), load.accepted_ids))
            if not all(b'"done"' in body for body in bodies):
                raise OverloadDemoError("not every job was done")
            calls, sent, inside = cloud.exchanges - calls, cloud.commands - sent, commands_run(place)[1] - commands
    return {
        "accepted": load.summary().accepted_per_s,
        "drained": jobs / drained_s,
        "calls": calls / jobs,
        "least commands": sent / jobs,
        "most commands": inside / jobs,
    }


def _idle(folder: Path, kind: str, watched_s: float) -> tuple[float, float]:
    """Return the commands of a worker without work in a month: a script counted as one, and those inside counted."""
    with (
        folder_in(folder) as place,
        far_store(place / "data", 0.0) as cloud,
        program(kind, variables=environment(place, **cloud.variables)),
    ):
        time.sleep(SETTLED_S)
        calls, commands = cloud.exchanges, commands_run(place)[1]  # idle, both send one command a call
        time.sleep(watched_s)
        months = watched_s / MONTH_S
        return (cloud.exchanges - calls) / months, (commands_run(place)[1] - commands) / months


if __name__ == "__main__":
    typer.run(main)
