"""Figures of measures against an overload: one spike under several promises, and retry storms."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from overload_demo.errors import ConfigurationError
from overload_demo.lab import BLUE, GREEN, GREY, OFFERED, ORANGE, PREDICTED, PURPLE, QUEUE, SINCE, YELLOW, Look, theory
from overload_demo.lab.job_log import PromiseRun
from overload_demo.lab.plots.accessible_figure import (
    AccessibleFigure,
    area,
    bars,
    doubtful,
    drawing,
    note,
    predicted,
    with_gaps,
)
from overload_demo.lab.storm import StormRun
from overload_demo.load.plan import Floats

_BUCKET_S = 0.5
_PROMISED: Look = {"color": GREY, "linewidth": 2.5, "linestyle": (0, (4, 1.5))}
_SENT: Look = {"color": ORANGE, "linewidth": 2.5, "linestyle": (0, (4, 1.5))}
_OUTCOMES: dict[str, Look] = {
    "recovered": {"color": BLUE, "marker": "o"},
    "drains": {"color": GREEN, "marker": "^"},
    "storm": {"color": ORANGE, "marker": "X"},
}
_WORDS = {"recovered": "recovered", "drains": "not back yet, the queue drains", "storm": "not back, the queue grows"}


def side_by_side(runs: Sequence[PromiseRun], *, oldest_s: float | None = None) -> AccessibleFigure:
    """Draw depth and age of the oldest job over time, a column a run, with the bound and the promise.

    ``oldest_s`` is the predicted age for the bounded queues.
    """
    with drawing(2, len(runs), height=8, sharey="row", sharex=True, squeeze=False) as (figure, grid):
        for run, (waiting, age) in zip(runs, grid.T, strict=True):
            series, bound = run.result.series, run.result.conditions.max_queue_depth
            area(waiting, *with_gaps(series.sampled_at_s, series.queue_depth))
            age.plot(*with_gaps(series.sampled_at_s, series.oldest_age_s), **QUEUE)
            age.axhline(run.promise_s, label=f"promise: {run.promise_s:g} s", **_PROMISED)
            if bound:
                waiting.axhline(bound, label=f"bound: {bound:,} jobs", color=GREEN, linewidth=2.5, linestyle="-.")
            if bound and oldest_s is not None:
                age.axhline(oldest_s, label=f"predicted: {oldest_s:g} s", **PREDICTED)
            waiting.set_title(run.name, pad=34, fontsize=17)
            waiting.set(xlim=(0, None), ylim=(0, None))
            waiting.locator_params(axis="x", nbins=5)
            age.set(xlabel=SINCE, ylim=(0, None))
        grid[0][0].set_ylabel("jobs waiting")
        grid[1][0].set_ylabel("age of the oldest, s")
    alt = " ".join(
        f"{run.name}: up to {run.result.peak_queue_depth:,} jobs wait, the oldest for {run.oldest_age_s:,.1f} s;"
        f" promised were {run.promise_s:g} s. Empty after {run.result.seconds_to_empty:,.1f} s."
        for run in runs
    ) + predicted("Predicted for the bounded queue: oldest age {:g} s.", oldest_s)
    differs = f"What differs: {', '.join(run.name for run in runs)}."
    return AccessibleFigure(figure, alt, f"The same spike each time, on equal scales. {differs}" if runs[1:] else "")


def outcomes(runs: Sequence[PromiseRun], *, refused_percent: float | None = None) -> AccessibleFigure:
    """Draw how many requests came to which end, a bar a run.

    ``refused_percent`` is the prediction for the bounded queues: a mark where the refused requests would begin.
    """
    ends, most = [run.ends for run in runs], max(run.result.offered for run in runs)
    counts = {name: [one[name] for one in ends] for name in ends[0]}
    with drawing(height=2.0 + 1.1 * len(runs)) as (figure, axes):
        names = [run.name for run in runs]
        bars(axes, names, counts, lambda count: f"{count:,}" if count > 0.06 * most else "")
        if refused_percent is not None:
            rows = [row for row, run in enumerate(runs) if run.result.conditions.max_queue_depth]
            at = [runs[row].result.offered * (1 - refused_percent / 100) for row in rows]
            low, high = ([row + side for row in rows] for side in (-0.42, 0.42))
            axes.vlines(at, low, high, label="predicted: refused from here", color=PURPLE, linewidth=4)
        axes.set(xlabel="requests")
    texts = []
    for run, one in zip(runs, ends, strict=True):
        counted = ", ".join(f"{count:,} {name}" for name, count in one.items() if count)
        texts.append(f"{run.name}: of {run.result.offered:,} requests {counted}.")
    alt = " ".join(texts) + predicted("Predicted for the bounded queue: share refused {:g} %.", refused_percent)
    return AccessibleFigure(figure, alt, f"In time: within {runs[0].promise_s:g} s of the 202.")


def storms(runs: Sequence[StormRun], *, back_s: float | None = None) -> AccessibleFigure:
    """Draw new requests, all attempts and results in time over time, a panel a run, with the freeze shaded.

    The numbers at the right are means of the last seconds. ``back_s`` is a prediction: seconds from the end of the
    freeze until results are in time again.
    """
    if not runs:
        raise ConfigurationError("there is no storm to draw")
    columns, top = min(2, len(runs)), 1.05 * max(map(_highest, runs))
    shape = math.ceil(len(runs) / columns), columns
    with drawing(*shape, height=1.6 + 3.2 * shape[0], sharex=True, sharey=True, squeeze=False) as (figure, grid):
        for axes, run in zip(grid.flat, runs, strict=False):
            _panel(axes, run, top)
            axes.set_title(_title(run, with_kind=len({one.is_measured for one in runs}) > 1), fontsize=15)
        note(grid[0, 0], "store\nfrozen", (runs[0].plan.calm_s, top), (6, -42), fontsize=13)
        for axes in grid.flat[len(runs) :]:
            axes.set_axis_off()
        for axes in grid.flat[max(0, len(runs) - columns) : len(runs)]:
            axes.set_xlabel("seconds")
            axes.tick_params(labelbottom=True)
        for axes in grid[:, 0]:
            axes.set_ylabel("a second")
        for axes in grid.flat[: 0 if back_s is None else len(runs)]:
            at_s = min(runs[0].plan.thaws_s + (back_s or 0), runs[0].plan.ends_s)
            axes.axvline(at_s, **PREDICTED)
            note(axes, "predicted: back", (at_s, top / 2), (-16, 0), ha="left", va="center", rotation=90, fontsize=13)
    alt = " ".join(_text(run) for run in runs) + predicted("Back {:g} s after the freeze was predicted.", back_s)
    return AccessibleFigure(figure, alt, _caption(runs))


def storm_map(
    simulated: Sequence[StormRun], measured: Sequence[StormRun] = (), drain_per_s: float | None = None
) -> AccessibleFigure:
    """Draw how storms went on after the freeze, by load and number of retries, and the line load x (1 + retries) = 1.

    Small marks are simulated, large ones measured. Their load is a share of ``drain_per_s``, which the worker was seen
    to do; without it, of what the plan's work allows.
    """
    runs = [*simulated, *measured]
    if not runs:
        raise ConfigurationError("there is no storm to draw")
    retries = np.linspace(0, max(run.retries for run in runs) + 0.6, 200)
    edge = 1 / (1 + retries)
    with drawing(height=7.5, title="Which loads recover from the freeze?") as (figure, axes):
        axes.fill_betweenx(retries, edge, 1.05, color=ORANGE, alpha=0.08)
        axes.fill_betweenx(retries, 0, edge, color=BLUE, alpha=0.08)
        axes.plot(edge, retries, color="black", linewidth=2.5)
        for outcome, look in _OUTCOMES.items():
            mark: Look = look | {"linestyle": "", "markeredgecolor": "black"}
            axes.plot(*_points(simulated, outcome), markersize=9, **mark)
            axes.plot(*_points(measured, outcome, drain_per_s), markersize=20, markeredgewidth=2, **mark)
            axes.plot([], [], markersize=11, label=_WORDS[outcome], **mark)
        note(axes, "load x (1 + retries) = 1", (float(edge[-1]), float(retries[-1])), (10, -16), weight="bold")
        note(axes, "stable", (0.02, 0), (0, 14), color=BLUE, weight="bold")
        note(
            axes,
            "vulnerable: the storm stays",
            (0.98, float(retries[-1])),
            (0, -16),
            color=ORANGE,
            weight="bold",
            ha="right",
        )
        axes.set(xlabel="load without retries: new requests a second ÷ jobs a second", ylabel="retries of a request")
        axes.set(xlim=(0, 1), ylim=(-0.5, retries[-1]), yticks=sorted({run.retries for run in runs}))
    counts = Counter((run.outcome, run.load > theory.storm_load(run.retries)) for run in simulated)
    texts = [
        f"{count} simulated points {'right' if is_right else 'left'} of it: {_WORDS[outcome]}."
        for (outcome, is_right), count in sorted(counts.items())
    ]
    texts += [
        f"Measured, load {_load(run, drain_per_s):.2f}, {run.retries} retries: {_WORDS[run.outcome]}."
        for run in measured
    ]
    alt = "The line load x (1 + retries) = 1 divides loads that recover from loads that do not. " + " ".join(texts)
    return AccessibleFigure(
        figure, alt, f"Small marks: simulated. {'Large marks: measured on the real stack.' * bool(measured)}"
    )


def _points(runs: Sequence[StormRun], outcome: str, drain_per_s: float | None = None) -> tuple[list[float], list[int]]:
    chosen = [run for run in runs if run.outcome == outcome]
    return [_load(run, drain_per_s) for run in chosen], [run.retries for run in chosen]


def _load(run: StormRun, drain_per_s: float | None) -> float:
    return run.load if drain_per_s is None else run.plan.per_s / drain_per_s


def _panel(axes: Axes, run: StormRun, top: float) -> None:
    """Draw one storm up to ``top`` a second; the names of the curves stand at their ends, apart from each other."""
    plan, edges_s = run.plan, _edges_s(run)
    axes.axvspan(plan.calm_s, plan.thaws_s, color=YELLOW, alpha=0.35)
    at = -top
    for name, (times_s, look) in sorted(_curves(run).items(), key=lambda one: run.rate_at_end(one[1][0])):
        axes.stairs(np.histogram(times_s, edges_s)[0] / edges_s[1], edges_s, baseline=None, **look)
        rate = run.rate_at_end(times_s)
        at = max(rate, at + top / 10)
        style: Look = {"color": look["color"], "fontsize": 13, "annotation_clip": False}
        note(axes, f"{name} {rate:,.0f}/s", (plan.ends_s, at), (8, -5), **style)
    axes.set(xlim=(0, plan.ends_s), ylim=(0, top))


def _curves(run: StormRun) -> dict[str, tuple[Sequence[float], Look]]:
    log = run.log
    return {"sent": (log.attempts_s, _SENT), "new": (log.requests_s, OFFERED), "in time": (log.in_time_s, QUEUE)}


def _edges_s(run: StormRun) -> Floats:
    return np.linspace(0, run.plan.ends_s, 1 + max(10, round(run.plan.ends_s / _BUCKET_S)))


def _highest(run: StormRun) -> float:
    edges_s = _edges_s(run)
    return max(float(np.histogram(times_s, edges_s)[0].max() / edges_s[1]) for times_s, _ in _curves(run).values())


def _title(run: StormRun, *, with_kind: bool) -> str:
    name = f"{run.cure.name}, {_kind(run)}" if with_kind else run.cure.name
    return f"{name}: {_WORDS[run.outcome] if run.back_s is None else f'back {run.back_s:.1f} s after the freeze'}"


def _kind(run: StormRun) -> str:
    return "measured" if run.is_measured else "simulated"


def _text(run: StormRun) -> str:
    rates = ", ".join(f"{name} {run.rate_at_end(times_s):,.0f}" for name, (times_s, _) in _curves(run).items())
    return f"{_title(run, with_kind=True)}; a second at the end: {rates}."


def _caption(runs: Sequence[StormRun]) -> str:
    plan, kinds = runs[0].plan, sorted({_kind(run) for run in runs})
    text = (
        f"{' and '.join(kinds).capitalize()}. Shaded: the freeze. New: new requests. Sent: with all retries. In time: "
    )
    text += f"results within the {plan.timeout_s:g} s that a client waits; a job takes {plan.work_s * 1000:g} ms."
    return text + doubtful({run.cure.name: run.doubt for run in runs})
