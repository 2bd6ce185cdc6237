"""The picture of one variant's recorded runs: the spike over time, and every load at a glance."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from overload_demo.lab.baseline import BaselineRun

# Okabe and Ito's colours, told apart by colour-blind people; dashes besides, for black and white.
BLUE, ORANGE, RED, GREEN, BLACK = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#000000"


def draw(runs: list[BaselineRun], path: Path) -> None:
    """Write a PNG of four panels; ``runs`` are of one variant, the last one is shown over time."""
    spike = runs[-1]
    with plt.rc_context({"font.size": 13, "axes.grid": True, "grid.alpha": 0.3, "lines.linewidth": 2.2}):
        figure, panels = plt.subplots(2, 2, figsize=(14, 8.5), constrained_layout=True)
        figure.suptitle(
            f"Naive API, {spike.variant}: {spike.requests:,} requests, {spike.shape} at {spike.rate_per_s:,.0f}/s, "
            f"{spike.delay_s * 1000:g} ms of work a job, clients wait {spike.timeout_s:g} s"
        )
        _rates(panels[0, 0], spike)
        _depth(panels[0, 1], spike)
        _times(panels[1, 0], spike)
        _all_loads(panels[1, 1], runs)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _rates(axes: Axes, run: BaselineRun) -> None:
    start_s = run.series.start_s
    axes.step(start_s, run.series.offered_per_s, color=BLACK, ls=":", where="post", label="offered")
    axes.step(start_s, run.answered_per_s(), color=GREEN, where="post", label="answered 200")
    axes.step(start_s, run.series.failed_per_s, color=RED, ls="--", where="post", label="failed")
    axes.axhline(run.capacity_per_s, color=ORANGE, ls="-.", label=f"capacity, {run.capacity_per_s:,.0f}/s")
    axes.set(title="Offered, answered, failed", xlabel="time, s", ylabel="requests a second", ylim=(0, None))
    _finish(axes, columns=2)


def _depth(axes: Axes, run: BaselineRun) -> None:
    series = run.series
    ends_s = np.array(series.start_s) + 1
    axes.plot(ends_s, series.in_flight, color=BLUE, label="clients waiting")
    if series.sampled_at_s:
        axes.plot(series.sampled_at_s, series.app_in_flight, color=ORANGE, ls="--", label="in the app, also abandoned")
    axes.set(title="Requests in flight (its only queue)", xlabel="time, s", ylabel="requests")
    axes.set_ylim(0, None)
    _finish(axes, columns=2)


def _times(axes: Axes, run: BaselineRun) -> None:
    start_s = run.series.start_s
    as_floats = [[np.nan if value is None else value for value in values] for values in _percentiles(run)]
    axes.step(start_s, as_floats[0], color=BLUE, where="post", label="p50, answered")
    axes.step(start_s, as_floats[1], color=RED, ls="--", where="post", label="p99, answered")
    axes.axhline(run.timeout_s, color=BLACK, ls=":", label="time-out")
    axes.set(title="Response time, from the intended send", xlabel="intended at, s", ylabel="seconds", yscale="log")
    axes.set_xlim(0, start_s[-1])
    _finish(axes, columns=3)


def _percentiles(run: BaselineRun) -> tuple[list[float | None], list[float | None]]:
    return run.series.response_p50_s, run.series.response_p99_s


def _all_loads(axes: Axes, runs: list[BaselineRun]) -> None:
    names = [f"{run.shape}\n{run.rate_per_s:,.0f}/s" for run in runs]
    shares = [100 * run.summary.accepted / run.summary.planned for run in runs]
    bars = axes.bar(names, shares, color=BLUE, edgecolor=BLACK)
    axes.bar_label(bars, [_label(run, share) for run, share in zip(runs, shares, strict=True)], padding=3)
    axes.set(title="Answered in time, and p99 of those", ylabel="% of the requests", ylim=(0, 125))


def _label(run: BaselineRun, share: float) -> str:
    times = run.summary.response_time
    if times is None:
        return f"{share:.0f} %"
    return f"{share:.0f} %\n" + (f"{times.p99_s:.1f} s" if times.p99_s >= 1 else f"{times.p99_s * 1000:.0f} ms")


def _finish(axes: Axes, *, columns: int) -> None:
    """Put the legend below, where it hides nothing, and commas into large numbers."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns, frameon=False, fontsize=12)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_formatter("{x:,.0f}")
