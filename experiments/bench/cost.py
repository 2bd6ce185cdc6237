"""What a job costs on Upstash, the plain recipe beside ours: ``python -m experiments.bench.cost``.

Both run with no work in a job, before a simulated database a round trip away, each on a store of its own: 64 clients
post, one worker drains, every job is polled once, and exchanges and commands of all that are counted by the database's
side. The plain recipe is given fewer jobs, as it drains a few a second. At the end each worker idles for a while.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.record import Benchmark, Place, Row
from experiments.bench.servers import commands_run, environment, folder_in, get, our_api, until, uvicorn, worker
from experiments.simulated_cloud import SimulatedCloud
from overload_demo.config import load_settings
from overload_demo.console import one_line_errors
from overload_demo.errors import OverloadDemoError
from overload_demo.lab.report import FREE_COMMANDS_PER_MONTH, PRICE_PER_100K_COMMANDS
from overload_demo.load import LoadPlan, run_load
from overload_demo.store.embedded import EmbeddedStore

CLIENTS = 64
DRAINED_WITHIN_S = 600.0
SETTLED_S = 40.0  # an idle worker's polls are then as rare as they get
MONTH_S = 30 * 86_400
OURS, PLAIN = "overload_demo.worker", "experiments.bench.plain_recipe"


@dataclass(frozen=True)
class Measured:
    """A round of one of the two; rates in jobs a second, the rest a job."""

    accepted_per_s: float
    drained_per_s: float
    calls: float
    least_commands: float
    most_commands: float


def main(
    pairs: Annotated[int, typer.Option(help="measurements of each", min=1)] = 5,
    jobs: Annotated[int, typer.Option(help="jobs given to ours", min=10)] = 5_000,
    plain_jobs: Annotated[int, typer.Option(help="jobs given to the plain recipe", min=10)] = 200,
    round_trip: Annotated[float, typer.Option(help="added to every exchange, seconds", min=0.0)] = 0.05,
    idle: Annotated[float, typer.Option(help="how long an idle worker is watched, seconds", min=1.0)] = 60.0,
    folder: Annotated[Path, typer.Option(help="where the stores' data goes for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure both in turn and record what they cost."""
    with one_line_errors():
        place = Place.here("experiments.bench.cost", folder)
        ours: list[Measured] = []
        plain: list[Measured] = []
        for _ in range(pairs):
            ours.append(_round(folder, OURS, jobs, round_trip))
            plain.append(_round(folder, PLAIN, plain_jobs, round_trip))
        rows = [*_costs(ours, plain, round_trip), *_idle_costs(folder, idle)]
        notes: dict[str, float | str] = {
            "clients": CLIENTS,
            "free commands a month": FREE_COMMANDS_PER_MONTH,
            "dollars for 100,000 commands": PRICE_PER_100K_COMMANDS,
            "fsync p50, ms": place.fsync_p50_ms,
        }
        Benchmark(place=place, rows=rows, notes=notes).record("cost")


def _costs(ours: list[Measured], plain: list[Measured], round_trip_s: float) -> list[Row]:
    whats = {
        "calls": "REST calls a job",
        "least_commands": "commands a job, a script counted as one",
        "most_commands": "commands a job, those inside scripts counted",
        "accepted_per_s": f"accepted, jobs/s, {round_trip_s * 1000:g} ms away",
        "drained_per_s": f"drained by one worker, jobs/s, {round_trip_s * 1000:g} ms away",
    }
    return [
        Row(
            what=what,
            ours=[getattr(one, name) for one in ours],
            theirs=[getattr(one, name) for one in plain],
            less_is_better=not name.endswith("per_s"),
        )
        for name, what in whats.items()
    ]


def _round(folder: Path, kind: str, jobs: int, round_trip_s: float) -> Measured:
    with _database(folder, round_trip_s) as (place, cloud, access), ExitStack() as stack:
        api = our_api(place, **access) if kind == OURS else uvicorn(f"{PLAIN}:app", place, **access)
        url, _ = stack.enter_context(api)
        calls, (scripts, commands) = cloud.exchanges, commands_run(place)
        load = asyncio.run(run_load(LoadPlan(url, requests=jobs, connections=CLIENTS)))
        summary, job_ids = load.summary(), load.accepted_ids
        if len(job_ids) != jobs:
            raise OverloadDemoError(f"only {len(job_ids):,} of {jobs:,} were accepted: {summary.failures}")
        since = time.monotonic()
        _drain(place, kind, access)
        drained_s = time.monotonic() - since
        with ThreadPoolExecutor(CLIENTS) as clients:
            bodies = list(clients.map(lambda job_id: get(url, f"/jobs/{job_id}"), job_ids))
        if not all(b'"done"' in body for body in bodies):
            raise OverloadDemoError("not every job was done")
        calls_after, (scripts_after, commands_after) = cloud.exchanges, commands_run(place)
    inside = commands_after - commands
    return Measured(
        summary.accepted_per_s,
        jobs / drained_s,
        (calls_after - calls) / jobs,
        _as_one(calls_after - calls, scripts_after - scripts, inside, kind) / jobs,
        inside / jobs,
    )


def _as_one(calls: int, scripts: int, commands: int, kind: str) -> int:
    """Commands as sent. Ours sends little but scripts, and no pipeline of other things; the recipe knows no scripts."""
    return max(calls, scripts) if kind == OURS else commands


def _drain(place: Path, kind: str, access: dict[str, str]) -> None:
    if kind == OURS:
        with worker(place, "--until-empty", **access) as part:
            until(lambda: part.pid is None, DRAINED_WITHIN_S)
        return
    command = [sys.executable, "-m", PLAIN, "--until-empty"]
    subprocess.run(command, env=environment(place, **access), check=True, timeout=DRAINED_WITHIN_S)


def _idle_costs(folder: Path, watched_s: float) -> list[Row]:
    whats = ("a script counted as one", "those inside scripts counted")
    counts = zip(whats, _idle(folder, OURS, watched_s), _idle(folder, PLAIN, watched_s), strict=True)
    return [
        Row(what=f"commands of an idle worker in a month, {what}", ours=[ours], theirs=[plain], less_is_better=True)
        for what, ours, plain in counts
    ]


def _idle(folder: Path, kind: str, watched_s: float) -> tuple[float, float]:
    """Commands of a worker without work in a month: a script counted as one, and with those inside."""
    with _database(folder, 0.0) as (place, cloud, access):
        process = subprocess.Popen([sys.executable, "-m", kind], env=environment(place, **access))
        try:
            time.sleep(SETTLED_S)
            calls, commands = cloud.exchanges, commands_run(place)[1]  # idle, both send one command a call
            time.sleep(watched_s)
            counted = cloud.exchanges - calls, commands_run(place)[1] - commands
            return counted[0] / watched_s * MONTH_S, counted[1] / watched_s * MONTH_S
        finally:
            process.kill()
            process.wait()


@contextmanager
def _database(folder: Path, round_trip_s: float) -> Iterator[tuple[Path, SimulatedCloud, dict[str, str]]]:
    """A store of its own a round trip away: its folder, the cloud before it, and what the environment says of it."""
    with (
        folder_in(folder) as place,
        EmbeddedStore(place / "data", load_settings()) as store,
        SimulatedCloud(store.acquire()).serving() as cloud,
    ):
        cloud.round_trip_s = round_trip_s
        token = cloud.address.token.get_secret_value()
        yield place, cloud, {"UPSTASH_REDIS_REST_URL": cloud.address.url, "UPSTASH_REDIS_REST_TOKEN": token}


if __name__ == "__main__":
    typer.run(main)
