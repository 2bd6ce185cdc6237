"""What flows in and what flows out: one picture holds depth, waits, peak and the time to empty."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from overload_demo.errors import ConfigurationError
from overload_demo.lab import theory
from overload_demo.lab.colours import BLUE, GREEN, GREY, ORANGE
from overload_demo.lab.job_log import JobLog
from overload_demo.lab.plots.accessible_figure import PREDICTED, QUEUE, AccessibleFigure, drawing, legend, thousands

_ARROW: dict[str, Any] = {"arrowstyle": "<->", "linewidth": 2.5, "shrinkA": 0, "shrinkB": 0}
_WHITE: dict[str, Any] = {"color": "white", "alpha": 0.8, "pad": 1.5}
_ARRIVED: dict[str, Any] = {"color": GREY, "linewidth": 2.5, "linestyle": (0, (5, 1.5))}


def cumulative(log: JobLog, *, peak: float | None = None, empty_s: float | None = None) -> AccessibleFigure:
    """Jobs accepted until a moment, A(t), and jobs done until then, D(t).

    An arrow down marks the largest gap, the peak depth; an arrow across the wait of one job. ``peak`` (jobs) and
    ``empty_s`` (seconds since the spike began) are predictions: drawn as the departures that would have led there.
    Raises :class:`ConfigurationError` for a log without a job.
    """
    _check(log)
    arrived_s, left_s = np.sort(log.accepted_s), np.sort(log.done_s)
    at_s, depth = log.depth()
    deepest = int(np.argmax(depth))
    job = int(0.7 * arrived_s.size)  # in the order of acceptance
    wait_s = log.done_s[job] - log.accepted_s[job]
    counts = np.arange(1, arrived_s.size + 1)
    with drawing(height=7) as (figure, axes):
        axes.fill(
            np.concatenate([arrived_s, left_s[::-1]]), np.concatenate([counts, counts[::-1]]), color=BLUE, alpha=0.1
        )
        axes.step(arrived_s, counts, where="post", label="A(t): accepted so far", **_ARRIVED)
        axes.step(left_s, counts, where="post", label="D(t): done so far", **QUEUE)
        _predicted_departures(axes, log, peak, empty_s)
        _depth_arrow(axes, at_s[deepest], int(np.searchsorted(left_s, at_s[deepest], "right")), int(depth[deepest]))
        _wait_arrow(axes, job, log.accepted_s[job], log.done_s[job])
        axes.set_xlabel("seconds since the spike began")
        axes.set_ylabel("jobs")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.05 * arrived_s.size)
        thousands(axes.yaxis)
        legend(axes, columns=3)
    text = (
        f"Two rising curves. A, jobs accepted, reaches {arrived_s.size:,} after {arrived_s[-1]:,.1f} s; D, jobs done,"
        f" lies below it and reaches the same number after {left_s[-1]:,.1f} s. The gap between them is widest after"
        f" {at_s[deepest]:,.1f} s: {depth[deepest]:,.0f} jobs. Job number {job + 1:,} waited {wait_s:,.2f} s."
    )
    return AccessibleFigure(
        figure, text + _expected(peak, empty_s), "Down: how many wait at a moment. Across: how long a job waits."
    )


def waits(log: JobLog) -> AccessibleFigure:
    """The wait of every job, from its 202 to its effect, over the moment it was accepted; mean, median, maximum."""
    _check(log)
    wait_s = log.done_s - log.accepted_s
    mean_s, half_s, most_s = float(wait_s.mean()), float(np.median(wait_s)), float(wait_s.max())
    longer = float(np.mean(wait_s > mean_s))
    with drawing(height=5.5) as (figure, axes):
        axes.plot(log.accepted_s, wait_s, ".", color=BLUE, markersize=5, rasterized=True, label="one job")
        for value, name, look in (
            (most_s, "longest", {"color": ORANGE, "linestyle": (0, (4, 1.5))}),
            (mean_s, "mean", {"color": GREEN, "linestyle": "-."}),
            (half_s, "median", {"color": GREY, "linestyle": ":"}),
        ):
            axes.axhline(value, linewidth=2.5, label=f"{name}: {value:,.2f} s", **look)
        axes.set_xlabel("accepted, seconds since the spike began")
        axes.set_ylabel("wait, s")
        axes.set_ylim(0, 1.08 * most_s)
        legend(axes)
    text = (
        f"The wait of each of {wait_s.size:,} jobs over the moment it was accepted: {wait_s[0]:,.2f} s for"
        f" the first, {wait_s[-1]:,.2f} s for the last. Mean {mean_s:,.2f} s, median {half_s:,.2f} s, longest"
        f" {most_s:,.2f} s; {longer:.0%} of the jobs waited longer than the mean."
    )
    return AccessibleFigure(figure, text, f"{longer:.0%} of the jobs waited longer than the mean.")


def depth(log: JobLog, *, arrival_per_s: float, drain_per_s: float, spike_s: float) -> AccessibleFigure:
    """Jobs accepted and not done over time, and the triangle that theory expects: up at λ - μ, down at μ."""
    _check(log)
    at_s, measured = log.depth()
    peak = theory.peak_depth(arrival_per_s, drain_per_s, spike_s)
    empty_s = theory.seconds_to_empty(arrival_per_s, drain_per_s, spike_s)
    with drawing(height=5.5) as (figure, axes):
        axes.fill_between(at_s, measured, step="post", color=BLUE, alpha=0.12)
        axes.step(at_s, measured, where="post", label="measured: accepted and not done", **QUEUE)
        axes.plot([0, spike_s, empty_s], [0, peak, 0], marker="X", markersize=13, label="theory", **PREDICTED)
        axes.set_xlabel("seconds since the spike began")
        axes.set_ylabel("jobs in the system")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.1 * max(peak, float(measured.max())))
        thousands(axes.yaxis)
        legend(axes)
    text = (
        f"Jobs in the system over time: up to {measured.max():,.0f} and back to 0 after {at_s[-1]:,.1f} s. Theory, laid"
        f" over it, is a triangle: up to {peak:,.0f} at {spike_s:,.1f} s, back to 0 after {empty_s:,.1f} s."
    )
    return AccessibleFigure(figure, text, f"Theory with λ = {arrival_per_s:,.0f}/s and μ = {drain_per_s:,.0f}/s.")


def _check(log: JobLog) -> None:
    if not log.accepted_s.size:
        raise ConfigurationError("no job of this log was done: there is nothing to draw")


def _predicted_departures(axes: Axes, log: JobLog, peak: float | None, empty_s: float | None) -> None:
    """The departures that would have led to the predicted peak at the end of the spike, and to empty when expected."""
    jobs, spike_s = float(log.accepted_s.size), float(log.accepted_s[-1])
    points = [(0.0, 0.0)]
    if peak is not None:
        points.append((spike_s, max(0.0, jobs - peak)))
    if empty_s is not None:
        points.append((empty_s, jobs))
    if len(points) > 1:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, label="D(t) as predicted", marker="X", markersize=13, clip_on=False, zorder=3, **PREDICTED)


def _depth_arrow(axes: Axes, at_s: float, done: int, depth: int) -> None:
    axes.annotate("", (at_s, done), (at_s, done + depth), arrowprops=_ARROW | {"color": ORANGE})
    axes.annotate(
        f"depth at its peak: {depth:,} jobs",
        (at_s, done),
        (8, -8),  # below the departures there is room
        textcoords="offset points",
        color=ORANGE,
        va="top",
        bbox=_WHITE,
    )


def _wait_arrow(axes: Axes, job: int, accepted_s: float, done_s: float) -> None:
    height = job + 1
    axes.annotate("", (accepted_s, height), (done_s, height), arrowprops=_ARROW | {"color": GREEN})
    axes.annotate(
        f"job {height:,}\nwaits {done_s - accepted_s:,.2f} s",
        (accepted_s, height),
        (-10, 0),
        textcoords="offset points",
        color=GREEN,
        ha="right",
        va="center",
        bbox=_WHITE,
    )


def _expected(peak: float | None, empty_s: float | None) -> str:
    text = "" if peak is None else f" A peak of {peak:,.0f} jobs was predicted."
    return text if empty_s is None else f"{text} It was predicted to be empty after {empty_s:,.1f} s."
