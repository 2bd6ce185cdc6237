"""Figures of retry storms: what was sent and what came of it over time, and which loads recover from a freeze."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from overload_demo.errors import ConfigurationError
from overload_demo.lab import BLUE, GREEN, OFFERED, ORANGE, PREDICTED, QUEUE, YELLOW, Look, theory
from overload_demo.lab.plots.accessible_figure import AccessibleFigure, drawing, note, predicted
from overload_demo.lab.storm import StormRun
from overload_demo.load.plan import Floats

_BUCKET_S = 0.5
_SENT: Look = {"color": ORANGE, "linewidth": 2.5, "linestyle": (0, (4, 1.5))}
_OUTCOMES: dict[str, Look] = {
    "recovered": {"color": BLUE, "marker": "o"},
    "drains": {"color": GREEN, "marker": "^"},
    "storm": {"color": ORANGE, "marker": "X"},
}
_WORDS = {"recovered": "recovered", "drains": "not yet, the queue drains", "storm": "not, the queue grows"}


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
    back = {"drains": "not back yet, the queue drains", "storm": "not back, the queue grows"}
    return f"{name}: {back.get(run.outcome, f'back {run.back_s or 0:.1f} s after the freeze')}"


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
    doubts = [f"{run.cure.name} ({run.doubt})" for run in runs if run.doubt]
    return text + (f" Generator-bound, read with care: {', '.join(doubts)}." if doubts else "")
