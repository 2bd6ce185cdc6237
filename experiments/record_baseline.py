"""Record the naive baseline: every variant under several loads, written to ``experiments/results/``.

``python -m experiments.record_baseline`` fires the same loads at each variant: constant ones at multiples of what
``def-slot`` answers without overload, and last the spike of the main job. It writes one file and one figure a variant.
Stop other programs meanwhile.
"""

import asyncio
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from matplotlib.axes import Axes

from experiments.bench.record import RESULTS
from overload_demo.console import fail
from overload_demo.errors import OverloadDemoError
from overload_demo.lab.baseline import VARIANTS, BaselineRecording, BaselineRun, Variant
from overload_demo.lab.colours import BLUE, GREEN, ORANGE
from overload_demo.lab.naive_api import baseline_server, run_baseline
from overload_demo.lab.plots.accessible_figure import drawing, legend, thousands
from overload_demo.lab.plots.spike_figures import with_gaps
from overload_demo.load import LoadPlan, Shape, calibrate

DASHED: dict[str, Any] = {"color": ORANGE, "ls": "--"}


def main(
    delay: Annotated[float, typer.Option(help="work, seconds a job", min=0.0001)] = 0.0008,
    requests: Annotated[int, typer.Option(help="requests of the spike")] = 100_000,
    rate: Annotated[float, typer.Option(help="full rate of the spike, requests a second")] = 4000.0,
    multiples: Annotated[str, typer.Option(help="constant loads, in multiples of the capacity")] = "0.5,0.9,1.5,3",
    capacity: Annotated[
        float | None, typer.Option(help="what one multiple is, jobs a second", show_default="measured on def-slot")
    ] = None,
    constant_s: Annotated[float, typer.Option("--constant-s", help="length of a constant load, seconds")] = 10.0,
    timeout: Annotated[float, typer.Option(help="timeout of a client, seconds")] = 10.0,
    max_duration: Annotated[float, typer.Option(help="firing stops after so many seconds")] = 60.0,
    seed: Annotated[int, typer.Option(help="seed of the schedules")] = 0,
    variants: Annotated[str, typer.Option(help="which variants")] = ",".join(VARIANTS),
    output: Annotated[Path, typer.Option(help="folder for the files")] = RESULTS,
) -> None:
    """Record the naive baseline and draw it."""
    command = shlex.join(("python", "-m", "experiments.record_baseline", *sys.argv[1:]))
    try:
        chosen, factors = _parse(variants, multiples)
        capacity = capacity or asyncio.run(_measured_capacity(delay))
        print(f"one multiple is {capacity:,.0f} jobs/s")
        loads = [(Shape.CONSTANT, int(factor * capacity * constant_s), factor * capacity) for factor in factors]
        loads.append((Shape.SPIKE, requests, rate))
        plans = [  # all before the first minute of firing, so that a mistake shows at once
            LoadPlan("http://127.0.0.1", count, rate_per_s, shape, seed, timeout, max_duration_s=max_duration)
            for shape, count, rate_per_s in loads
        ]
        output.mkdir(parents=True, exist_ok=True)
        for variant in chosen:
            runs = []
            for plan in plans:
                print(f"{variant}: {plan.requests:,} requests, {plan.shape} at {plan.rate_per_s:,.0f}/s")
                runs.append(asyncio.run(_run(variant, plan, delay)))
                print(_line(runs[-1]))
            recording = BaselineRecording(command=command, runs=runs)
            (output / f"naive_{variant}.json").write_text(recording.model_dump_json() + "\n")
            _draw(runs, output / f"naive_{variant}.png")
    except OverloadDemoError as error:
        fail(error, 2)


async def _measured_capacity(delay_s: float) -> float:
    """Return what def-slot answers at its best, jobs a second, rounded to two digits so that it can be typed again."""
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
        return [cast(Variant, one) for one in chosen], [float(one) for one in multiples.split(",") if one]
    except ValueError:
        raise OverloadDemoError(f"multiples must be numbers separated by commas, not {multiples!r}") from None


def _line(run: BaselineRun) -> str:
    summary, times, slot = run.summary, run.summary.response_time, run.slot_capacity_per_s
    capacity = "no slot" if slot is None else f"slot {slot:,.0f} jobs/s"
    p99 = f"p50 {times.p50_s:.3f} s, p99 {times.p99_s:.3f} s" if times else "no response in time"
    counts = f"{summary.accepted:,} of {summary.planned:,} answered, {summary.not_fired:,} not fired"
    return f"  {capacity}, {run.unloaded_per_s:,.0f}/s without overload: {counts}; {p99}; {summary.verdict}"


def _draw(runs: list[BaselineRun], path: Path) -> None:
    """Write a PNG of one variant: the last run over time in three panels, and all runs in one."""
    spike = runs[-1]
    load = f"{spike.requests:,} requests, {spike.shape} at {spike.rate_per_s:,.0f}/s"
    title = f"Naive API, {spike.variant}: {load}, {spike.delay_s * 1000:g} ms a job, timeout {spike.timeout_s:g} s"
    with drawing(2, 2, height=9, width=16, title=title) as (figure, ((rates, depth), (times, all_loads))):
        _draw_rates(rates, spike)
        _draw_depth(depth, spike)
        _draw_times(times, spike)
        shares = [100 * run.summary.accepted / run.summary.planned for run in runs]
        bars = all_loads.bar([f"{run.shape}\n{run.rate_per_s:,.0f}/s" for run in runs], shares, color=BLUE)
        all_loads.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=3)
        all_loads.set(ylabel="answered in time, % of the requests", ylim=(0, 112))
        figure.savefig(path, dpi=100)


def _draw_rates(axes: Axes, run: BaselineRun) -> None:
    start_s = run.series.start_s
    axes.step(start_s, run.series.offered_per_s, "k:", where="post", label="offered")
    axes.step(start_s, run.answered_per_s(), color=GREEN, where="post", label="answered 200")
    axes.step(start_s, run.series.failed_per_s, where="post", label="failed", **DASHED)
    axes.axhline(run.capacity_per_s, color=BLUE, ls="-.", label=f"capacity, {run.capacity_per_s:,.0f}/s")
    axes.set(xlabel="time, s", ylabel="requests a second", ylim=(0, None))
    legend(axes)
    thousands(axes.yaxis)


def _draw_depth(axes: Axes, run: BaselineRun) -> None:
    series = run.series
    axes.plot([start + 1 for start in series.start_s], series.in_flight, color=BLUE, label="clients waiting")
    if series.sampled_at_s:
        axes.plot(series.sampled_at_s, series.app_in_flight, label="in the app, abandoned ones included", **DASHED)
    axes.set(xlabel="time, s", ylabel="requests in flight", ylim=(0, None))
    legend(axes)
    thousands(axes.yaxis)


def _draw_times(axes: Axes, run: BaselineRun) -> None:
    series = run.series
    axes.step(series.start_s, with_gaps(series.response_p50_s), color=BLUE, where="post", label="p50, answered")
    axes.step(series.start_s, with_gaps(series.response_p99_s), where="post", label="p99, answered", **DASHED)
    axes.axhline(run.timeout_s, color="black", ls=":", label="timeout")
    axes.set(xlabel="intended at, s", ylabel="response time, s", yscale="log", xlim=(0, series.start_s[-1]))
    legend(axes)


if __name__ == "__main__":
    typer.run(main)
