"""Record the naive baseline: every variant under several loads, written to ``experiments/results/``.

``python -m experiments.record_baseline`` fires the same loads at each variant: constant ones at multiples of what
``def-slot`` answers without overload, and last the spike of the main job. It writes one file and one figure a variant.
Stop other programs meanwhile.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.bench.record import RESULTS, command_line
from overload_demo.console import fail
from overload_demo.errors import OverloadDemoError
from overload_demo.lab import BLUE, GREEN, GREY, ORANGE, PURPLE, SINCE, Look
from overload_demo.lab.naive_api import baseline_server, run_baseline
from overload_demo.lab.plots.accessible_figure import drawing, with_gaps
from overload_demo.lab.result import VARIANTS, BaselineRecording, BaselineRun, Variant
from overload_demo.load import LoadPlan, Shape, calibrate

# A colour has one meaning in all panels: answered, failed, waiting, in the app, and what the load and the slot allow.
IN_APP = "in the app, abandoned ones included"
STYLES: dict[str, Look] = {
    "offered": {"color": "black", "ls": ":"},
    "answered 200": {"color": GREEN},
    "failed": {"color": ORANGE, "ls": "--"},
    "clients waiting": {"color": BLUE},
    IN_APP: {"color": PURPLE},
    "p50, answered": {"color": GREEN, "ls": (0, (1, 1))},
    "p99, answered": {"color": GREEN},
}


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
    variants: Annotated[str, typer.Option(help="which variants")] = ",".join(VARIANTS),
    output: Annotated[Path, typer.Option(help="folder for the files")] = RESULTS,
) -> None:
    """Record the naive baseline and draw it."""
    try:
        chosen, factors = _parse(variants, multiples)
        capacity = capacity or asyncio.run(_measured_capacity(delay))
        print(f"one multiple is {capacity:,.0f} jobs/s")
        loads = [(Shape.CONSTANT, int(factor * capacity * constant_s), factor * capacity) for factor in factors]
        loads.append((Shape.SPIKE, requests, rate))
        plans = [  # all before the first load, so that an error appears at once
            LoadPlan("http://127.0.0.1", count, rate_per_s, shape, timeout_s=timeout, max_duration_s=max_duration)
            for shape, count, rate_per_s in loads
        ]
        output.mkdir(parents=True, exist_ok=True)
        for variant in chosen:
            runs = []
            for plan in plans:
                print(f"{variant}: {plan.requests:,} requests, {plan.shape} at {plan.rate_per_s:,.0f}/s")
                runs.append(asyncio.run(run_baseline(variant, plan, delay)))
                print(_line(runs[-1]))
            recording = BaselineRecording(command=command_line("experiments.record_baseline"), runs=runs)
            (output / f"naive_{variant}.json").write_text(recording.model_dump_json() + "\n")
            draw(runs, output / f"naive_{variant}.png")
    except OverloadDemoError as error:
        fail(error, 2)


async def _measured_capacity(delay_s: float) -> float:
    """Return what def-slot answers at its best, jobs a second, rounded to two digits so that it can be typed again."""
    async with baseline_server("def-slot", delay_s) as server:
        return float(f"{await calibrate(server.url, 2.0, success_status=200):.2g}")


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


def draw(runs: list[BaselineRun], path: Path) -> Figure:
    """Write a PNG of one variant, and return the figure: the last run over time in three panels, all runs in one."""
    spike, series = runs[-1], runs[-1].series
    start_s, end_s = series.start_s, [start + 1 for start in series.start_s]
    load = f"{spike.requests:,} requests, {spike.shape} at {spike.rate_per_s:,.0f}/s"
    title = f"Naive API, {spike.variant}: {load}, {spike.delay_s * 1000:g} ms a job, timeout {spike.timeout_s:g} s"
    with drawing(2, 2, height=9, width=16, title=title) as (figure, ((rates, depth), (times, all_loads))):
        rates.axhline(spike.capacity_per_s, color=GREY, ls="-.", label=f"capacity, {spike.capacity_per_s:,.0f}/s")
        _steps(rates, start_s, {"offered": series.offered_per_s, "failed": series.failed_per_s})
        _steps(rates, start_s, {"answered 200": spike.answered_per_s()}, ylabel="requests a second")
        _steps(depth, end_s, {"clients waiting": series.in_flight}, ylabel="requests in flight")
        at_s, in_app = with_gaps(series.sampled_at_s, series.app_in_flight)
        depth.plot(at_s, in_app, ".-", label=IN_APP, **STYLES[IN_APP])
        percentiles = {"p50, answered": series.response_p50_s, "p99, answered": series.response_p99_s}
        _steps(times, start_s, percentiles, ylabel="response time, s", yscale="log", xlabel=f"due, {SINCE}")
        due = zip(start_s, series.offered_per_s, series.response_p50_s, strict=True)
        failed_s = [at_s + 0.5 for at_s, offered, found_s in due if offered and found_s is None]
        if failed_s:
            times.plot(failed_s, [spike.timeout_s] * len(failed_s), "x", color=ORANGE, label="no answer in time")
        shares = [100 * run.summary.accepted / run.summary.planned for run in runs]
        bars = all_loads.bar([f"{run.shape}\n{run.rate_per_s:,.0f}/s" for run in runs], shares, color=GREEN)
        all_loads.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=3)
        all_loads.set(ylabel="answered in time, %", ylim=(0, 112))
        for axes in (rates, depth, times):
            axes.set_xlim(0, end_s[-1])
    figure.savefig(path, dpi=100)
    return cast(Figure, figure)


def _steps(axes: Axes, at_s: list[float], curves: dict[str, Any], **settings: Any) -> None:
    for label, values in curves.items():
        axes.step(at_s, np.array(values, dtype=np.float64), where="post", label=label, **STYLES[label])  # None: a gap
    axes.set(**{"xlabel": SINCE} | settings)


if __name__ == "__main__":
    typer.run(main)
