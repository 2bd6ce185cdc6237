"""Accepted a second, durably, against an endpoint that stores nothing: ``python -m experiments.bench.acceptance``.

One API process, no worker, embedded store with ``appendfsync always``. The loader is ``wrk``, where it is installed;
our own closed loop is always measured beside it, as a witness, with the CPU it took: where loader, gateway and Redis
together fill the second core, it is the whole machine that is measured. At a rate that fills nothing, the two have to
agree.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.record import Benchmark, Place, Row
from experiments.bench.servers import FLAGS, folder_in, our_api, posting, stats, uvicorn, wrk
from overload_demo.console import one_line_errors
from overload_demo.load import LoadPlan, Shape, run_load

MOST_PER_S = 50_000
CROWDS = {64: (1.0, 1.5), 256: (1.3, 2.0)}
# Below saturation: so many connections, each of which waits so long between two requests.
CALM, PAUSE_MS = 64, 30

Loader = Callable[[str, int, float], float]


def main(
    pairs: Annotated[int, typer.Option(help="measurements of each server", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="length of one measurement, seconds", min=1)] = 4.0,
    folder: Annotated[Path, typer.Option(help="where the store's data goes for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure both servers in turn with 64 and 256 connections, and record the ratios."""
    with one_line_errors(), folder_in(folder) as own:
        place = Place.here("experiments.bench.acceptance", folder)
        with our_api(own) as (ours, _), uvicorn("experiments.bench.storing_nothing:app") as (theirs, _):
            rows = [_row(by_own_loader, "own loader", crowd, ours, theirs, pairs, seconds) for crowd in CROWDS]
            if shutil.which("wrk"):
                rows = [_row(by_wrk, "wrk", crowd, ours, theirs, pairs, seconds) for crowd in CROWDS] + rows
                rows.append(_agreement(ours, pairs, seconds))
            counted = stats(ours)
        cpu = f"{100 * min(_cpu):.0f} to {100 * max(_cpu):.0f}"
        notes: dict[str, float | str] = {
            "REST calls a job, over the whole run": round(counted["rest_calls"] / counted["accepted"], 4),
            "CPU of our own loader, % of a core": cpu,
            "flags of the endpoint that stores nothing": " ".join(FLAGS),
            "fsync p50, ms": place.fsync_p50_ms,
        }
        Benchmark(place=place, rows=rows, notes=notes).record("acceptance")


def _row(load: Loader, name: str, crowd: int, ours: str, theirs: str, pairs: int, seconds: float) -> Row:
    measured = [(load(ours, crowd, seconds), load(theirs, crowd, seconds)) for _ in range(pairs)]
    # The numbers to reach are wrk's: our own loader competes with the store for the second core.
    at_least, aim = CROWDS[crowd] if load is by_wrk else (None, None)
    return Row(
        what=f"accepted, {crowd} connections, {name} ÷ storing nothing",
        unit="/s",
        ours=[one for one, _ in measured],
        theirs=[other for _, other in measured],
        at_least=at_least,
        aim=aim,
    )


def _agreement(url: str, pairs: int, seconds: float) -> Row:
    """Accepted a second below saturation as our own loader counts it, ÷ as wrk does.

    wrk runs first, on connections that pause between requests; our open loop then offers the rate that this came to.
    """
    measured = []
    for _ in range(pairs):
        by_witness = wrk(f"{url}/jobs", CALM, seconds, posting(PAUSE_MS))
        plan = LoadPlan(url, requests=round(by_witness * seconds), rate_per_s=by_witness, shape=Shape.CONSTANT)
        measured.append((asyncio.run(run_load(plan)).summary().accepted_per_s, by_witness))
    return Row(
        what="accepted below saturation, own loader ÷ wrk (to agree within 15 %)",
        unit="/s",
        ours=[one for one, _ in measured],
        theirs=[other for _, other in measured],
        at_least=0.85,
        aim=1.0,
    )


def by_own_loader(url: str, connections: int, seconds: float) -> float:
    """Accepted requests a second of our own closed loop; notes what CPU it took."""
    plan = LoadPlan(url, requests=round(MOST_PER_S * seconds), connections=connections, max_duration_s=seconds)
    summary = asyncio.run(run_load(plan)).summary()
    _cpu.extend(summary.health.cpu_share)
    return summary.accepted_per_s


_cpu: list[float] = []


def by_wrk(url: str, connections: int, seconds: float) -> float:
    """Requests a second as wrk counts them. Raises :class:`OverloadDemoError` when one was not accepted."""
    return wrk(f"{url}/jobs", connections, seconds, posting())


if __name__ == "__main__":
    typer.run(main)
