"""Record the naive baseline: every variant under several loads, written to ``experiments/results/``.

``python -m experiments.record_baseline`` fires the same loads at each variant: constant ones at several multiples of
what ``def-slot`` answers without overload, and last the spike of the main job. One file and one figure a variant; a run
takes as long as its load and its clients' patience. Nothing else should run on the machine meanwhile.
"""

import asyncio
import shlex
import sys
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from experiments.baseline_figure import draw
from overload_demo.errors import OverloadDemoError
from overload_demo.lab.baseline import VARIANTS, BaselineRecording, BaselineRun, Variant
from overload_demo.lab.naive_api import baseline_server, run_baseline
from overload_demo.load import LoadPlan, Shape, calibrate

RESULTS = Path(__file__).parent / "results"


def main(
    delay: Annotated[float, typer.Option(help="work, seconds a job", min=0.0001)] = 0.0008,
    requests: Annotated[int, typer.Option(help="requests of the spike")] = 100_000,
    rate: Annotated[float, typer.Option(help="full rate of the spike, requests a second")] = 4000.0,
    multiples: Annotated[str, typer.Option(help="constant loads, in multiples of the capacity")] = "0.5,0.9,1.5,3",
    capacity: Annotated[
        float | None, typer.Option(help="what one multiple is, jobs a second", show_default="measured on def-slot")
    ] = None,
    constant_s: Annotated[float, typer.Option("--constant-s", help="length of a constant load, seconds")] = 10.0,
    timeout: Annotated[float, typer.Option(help="how long a client waits, seconds")] = 10.0,
    max_duration: Annotated[float, typer.Option(help="firing stops after so many seconds")] = 60.0,
    seed: Annotated[int, typer.Option(help="seed of the schedules")] = 0,
    variants: Annotated[str, typer.Option(help="which variants")] = ",".join(VARIANTS),
    output: Annotated[Path, typer.Option(help="folder for the files")] = RESULTS,
) -> None:
    """Record the naive baseline and draw it."""
    console = Console(highlight=False)
    console.width = max(console.width, 120)  # the table, also when the output is a file
    command = shlex.join(("python", "-m", "experiments.record_baseline", *sys.argv[1:]))
    try:
        chosen, factors = _parse(variants, multiples)
        capacity = capacity or asyncio.run(_measured_capacity(delay))
        console.print(f"one multiple is {capacity:,.0f} jobs/s")
        rates = [factor * capacity for factor in factors]
        loads = [(Shape.CONSTANT, int(constant_rate * constant_s), constant_rate) for constant_rate in rates]
        loads.append((Shape.SPIKE, requests, rate))
        plans = [  # all made first: a mistake shows before the first minute of firing
            LoadPlan("http://127.0.0.1", count, rate_per_s, shape, seed, timeout, max_duration_s=max_duration)
            for shape, count, rate_per_s in loads
        ]
        output.mkdir(parents=True, exist_ok=True)
        for variant in chosen:
            runs = []
            for plan in plans:
                console.print(f"{variant}: {plan.requests:,} requests, {plan.shape} at {plan.rate_per_s:,.0f}/s")
                runs.append(asyncio.run(_run(variant, plan, delay)))
            recording = BaselineRecording(command=command, runs=runs)
            (output / f"naive_{variant}.json").write_text(recording.model_dump_json() + "\n")
            draw(runs, output / f"naive_{variant}.png")
            console.print(_table(runs))
    except OverloadDemoError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


async def _measured_capacity(delay_s: float) -> float:
    """What def-slot answers at its best, jobs a second, to two digits: a rate that can be said and typed again."""
    async with baseline_server("def-slot", delay_s) as server:
        return float(f"{await calibrate(server.url, 2.0, success_status=200):.2g}")


async def _run(variant: Variant, plan: LoadPlan, delay_s: float) -> BaselineRun:
    assert plan.max_duration_s is not None
    return await run_baseline(
        variant,
        requests=plan.requests,
        rate_per_s=plan.rate_per_s,
        shape=plan.shape,
        delay_s=delay_s,
        timeout_s=plan.timeout_s,
        max_duration_s=plan.max_duration_s,
        seed=plan.seed,
    )


def _parse(variants: str, multiples: str) -> tuple[list[Variant], list[float]]:
    chosen = variants.split(",")
    unknown = set(chosen) - set(VARIANTS)
    if unknown:
        raise OverloadDemoError(f"unknown variant {unknown.pop()!r}: choose among {', '.join(VARIANTS)}")
    try:
        factors = [float(multiple) for multiple in multiples.split(",") if multiple]
    except ValueError:
        raise OverloadDemoError(f"multiples must be numbers separated by commas, not {multiples!r}") from None
    return [cast(Variant, variant) for variant in chosen], factors


def _table(runs: list[BaselineRun]) -> Table:
    capacity = "no slot" if runs[0].slot_capacity_per_s is None else f"slot {runs[0].slot_capacity_per_s:,.0f} jobs/s"
    title = f"{runs[0].variant}: {capacity}, {runs[0].unloaded_per_s:,.0f}/s answered without overload"
    table = Table(title=title, title_justify="left")
    for name in ("load", "planned", "not fired", "answered", "failed", "p50 s", "p99 s", "in flight", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        summary, times = run.summary, run.summary.response_time
        table.add_row(
            f"{run.shape} {run.rate_per_s:,.0f}/s",
            f"{summary.planned:,}",
            f"{summary.not_fired:,}",
            f"{summary.accepted:,}",
            f"{summary.sent - summary.accepted:,}",
            f"{times.p50_s:.3f}" if times else "",
            f"{times.p99_s:.3f}" if times else "",
            f"{max(run.series.in_flight):,.0f}",
            summary.verdict,
        )
    return table


if __name__ == "__main__":
    typer.run(main)
