"""Figures of one spike under different promises: depth and age over time, and how every request ended."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from overload_demo.lab.colours import BLUE, GREEN, GREY, NAIVE, ORANGE, PREDICTED, QUEUE, SKY, YELLOW
from overload_demo.lab.job_log import PromiseRun
from overload_demo.lab.plots.accessible_figure import SINCE, AccessibleFigure, drawing, legend, thousands

# Colour and hatch: distinct in grey too.
_ENDS: dict[str, dict[str, Any]] = {
    "done in time": {"color": BLUE},
    "done late": {"color": ORANGE, "hatch": "//"},
    "refused at once": {"color": YELLOW, "hatch": ".."},
    "expired": {"color": SKY, "hatch": "xx"},
    "anything else": {"color": GREY},
}


def side_by_side(runs: Sequence[PromiseRun], *, oldest_s: float | None = None) -> AccessibleFigure:
    """Draw depth and age of the oldest job over time, a column a run, with the bound and the promise.

    ``oldest_s`` is the predicted age for the bounded queues.
    """
    with drawing(2, len(runs), height=8, sharey="row", sharex=True, squeeze=False) as (figure, grid):
        for run, (depth, age) in zip(runs, grid.T, strict=True):
            _depth(depth, run)
            _age(age, run, oldest_s if _is_bounded(run) else None)
            depth.set_title(run.name, pad=34, fontsize=17, loc="left")
            age.set_xlabel(SINCE)
        grid[0][0].set_ylabel("jobs waiting")
        grid[1][0].set_ylabel("age of the oldest, s")
    texts = [
        f"{run.name}: up to {run.result.peak_queue_depth:,} jobs wait, the oldest for {run.oldest_age_s:,.1f} s;"
        f" promised were {run.promise_s:g} s. Empty after {run.result.seconds_to_empty:,.1f} s."
        for run in runs
    ]
    alt = " ".join(texts) + _predicted("oldest age", oldest_s, " s")
    return AccessibleFigure(figure, alt, "The same spike each time; the scales are equal.")


def outcomes(runs: Sequence[PromiseRun], *, refused_percent: float | None = None) -> AccessibleFigure:
    """Draw how many requests came to which end, a bar a run.

    ``refused_percent`` is the prediction for the bounded queues: a mark where the refused requests would begin.
    """
    with drawing(height=2.0 + 1.1 * len(runs)) as (figure, axes):
        for row, run in enumerate(runs):
            left, offered = 0, run.result.offered
            for name, count in ends_of(run).items():
                if count:
                    axes.barh(row, count, left=left, height=0.6, edgecolor="white", **_ENDS[name])
                if count > 0.06 * offered:  # enough room for the number
                    look: dict[str, Any] = {"ha": "center", "va": "center", "bbox": {"color": "white", "pad": 2.5}}
                    axes.text(left + count / 2, row, f"{count:,}", **look)
                left += count
            if refused_percent is not None and _is_bounded(run):
                x, look = offered * (1 - refused_percent / 100), PREDICTED | {"linestyle": "-", "linewidth": 4}
                axes.plot([x, x], [row - 0.42, row + 0.42], label="predicted: refused from here", **look)
        for name in _ENDS:
            if any(ends_of(run)[name] for run in runs):
                axes.barh(0, 0, label=name, edgecolor="white", **_ENDS[name])
        axes.set_yticks(range(len(runs)), [run.name for run in runs])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("requests")
        thousands(axes.xaxis)
        legend(axes, columns=4)
    texts = []
    for run in runs:
        counts = ", ".join(f"{count:,} {name}" for name, count in ends_of(run).items() if count)
        texts.append(f"{run.name}: of {run.result.offered:,} requests {counts}.")
    alt = " ".join(texts) + _predicted("share refused", refused_percent, " %")
    return AccessibleFigure(figure, alt, f"In time: within {runs[0].promise_s:g} s of the 202.")


def ends_of(run: PromiseRun) -> dict[str, int]:
    """Return how many requests came to which end; the sum is the number offered."""
    return dict(zip(_ENDS, (run.in_time, run.late, run.refused, run.expired, run.other), strict=True))


def _depth(axes: Axes, run: PromiseRun) -> None:
    series, bound = run.result.series, run.result.conditions.max_queue_depth
    axes.fill_between(series.sampled_at_s, series.queue_depth, color=BLUE, alpha=0.12)
    axes.plot(series.sampled_at_s, series.queue_depth, **QUEUE)
    if bound:
        axes.axhline(bound, label=f"bound: {bound:,} jobs", color=GREEN, linewidth=2.5, linestyle="-.")
        legend(axes)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    thousands(axes.yaxis)


def _age(axes: Axes, run: PromiseRun, predicted_s: float | None) -> None:
    series = run.result.series
    axes.plot(series.sampled_at_s, series.oldest_age_s, **QUEUE)
    axes.axhline(run.promise_s, label=f"promise: {run.promise_s:g} s", **NAIVE | {"linewidth": 2.5})
    if predicted_s is not None:
        axes.axhline(predicted_s, label=f"predicted: {predicted_s:g} s", **PREDICTED)
    axes.set_ylim(bottom=0)
    legend(axes)


def _is_bounded(run: PromiseRun) -> bool:
    return run.result.conditions.max_queue_depth > 0


def _predicted(what: str, value: float | None, unit: str) -> str:
    return "" if value is None else f" Predicted for the bounded queue: {what} {value:g}{unit}."
