"""Figures of jobs in time: arrivals and departures, waits, depth, and the life of a single job."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from overload_demo.errors import ConfigurationError
from overload_demo.lab import theory
from overload_demo.lab.colours import BLUE, GREEN, GREY, ORANGE, PREDICTED, QUEUE
from overload_demo.lab.job_log import JobLog
from overload_demo.lab.job_timeline import JobLife
from overload_demo.lab.plots.accessible_figure import SINCE, AccessibleFigure, drawing, expected, legend, thousands

_ARROW: dict[str, Any] = {"arrowstyle": "<->", "linewidth": 2.5, "shrinkA": 0, "shrinkB": 0}
_ARRIVED: dict[str, Any] = {"color": GREY, "linewidth": 2.5, "linestyle": (0, (5, 1.5))}
_Point = tuple[float, float]
_MARKS = {"accepted": (ORANGE, "o"), "started": (BLUE, "s"), "completed": (GREEN, "D")}


def cumulative(log: JobLog, *, peak: float | None = None, empty_s: float | None = None) -> AccessibleFigure:
    """Draw the jobs accepted so far, A(t), and the jobs done so far, D(t).

    An arrow down marks the largest gap, the peak depth; an arrow across the wait of one job. ``peak`` (jobs) and
    ``empty_s`` (seconds since the spike began) are predictions, drawn as the departures that lead there.
    Raises :class:`ConfigurationError` for a log without a job.
    """
    _check(log)
    arrived_s, left_s = np.sort(log.accepted_s), np.sort(log.done_s)
    at_s, depths = log.depth()
    widest_s, deepest = at_s[np.argmax(depths)], int(depths.max())
    job = int(0.7 * arrived_s.size)  # in the order of acceptance
    accepted_s, done_s = log.accepted_s[job], log.done_s[job]
    counts = np.arange(1, arrived_s.size + 1)
    with drawing(height=7) as (figure, axes):
        around = np.concatenate([arrived_s, left_s[::-1]]), np.concatenate([counts, counts[::-1]])
        axes.fill(*around, color=BLUE, alpha=0.1)
        axes.step(arrived_s, counts, where="post", label="A(t): accepted so far", **_ARRIVED)
        axes.step(left_s, counts, where="post", label="D(t): done so far", **QUEUE)
        points = [(0.0, 0.0)]
        if peak is not None:
            points.append((float(log.accepted_s[-1]), max(0.0, arrived_s.size - peak)))
        if empty_s is not None:
            points.append((empty_s, float(arrived_s.size)))
        if len(points) > 1:
            look = PREDICTED | {"marker": "X", "markersize": 13, "clip_on": False, "zorder": 3}
            axes.plot(*zip(*points, strict=True), label="D(t) as predicted", **look)
        below = int(np.searchsorted(left_s, widest_s, "right"))
        text = f"depth at its peak: {deepest:,} jobs"  # below the departures there is room for it
        _arrow(axes, (widest_s, below), (widest_s, below + deepest), text, (8, -8), color=ORANGE, va="top")
        text = f"job {job + 1:,}\nwaits {done_s - accepted_s:,.2f} s"
        look = {"color": GREEN, "ha": "right", "va": "center"}
        _arrow(axes, (accepted_s, job + 1), (done_s, job + 1), text, (-10, 0), **look)
        axes.set(xlabel=SINCE, ylabel="jobs", ylim=(0, 1.05 * arrived_s.size))
        axes.set_xlim(left=0)
        thousands(axes.yaxis)
        legend(axes, columns=3)
    alt = (
        f"Two rising curves. A, jobs accepted, reaches {arrived_s.size:,} after {arrived_s[-1]:,.1f} s; D, jobs done,"
        f" lies below it and reaches the same number after {left_s[-1]:,.1f} s. The gap between them is widest after"
        f" {widest_s:,.1f} s: {deepest:,} jobs. Job number {job + 1:,} waited {done_s - accepted_s:,.2f} s."
    )
    caption = "Down: how many wait at a moment. Across: how long a job waits."
    return AccessibleFigure(figure, alt + expected(peak, empty_s), caption)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str,
    offset: tuple[float, float],
    **look: Any,
) -> None:
    """Draw a double arrow, and its text at an offset in points from its start."""
    axes.annotate("", start, end, arrowprops=_ARROW | {"color": look["color"]})
    box = {"color": "white", "alpha": 0.8, "pad": 1.5}
    axes.annotate(text, start, offset, textcoords="offset points", bbox=box, **look)


def waits(log: JobLog) -> AccessibleFigure:
    """Draw the wait of every job, from 202 to effect, over its time of acceptance, with mean, median and maximum."""
    _check(log)
    wait_s = log.done_s - log.accepted_s
    mean_s, half_s, most_s = float(wait_s.mean()), float(np.median(wait_s)), float(wait_s.max())
    longer = float(np.mean(wait_s > mean_s))
    with drawing(height=5.5) as (figure, axes):
        axes.plot(log.accepted_s, wait_s, ".", color=BLUE, markersize=5, rasterized=True, label="one job")
        for value, name, colour, dash in (
            (most_s, "longest", ORANGE, (0, (4, 1.5))),
            (mean_s, "mean", GREEN, "-."),
            (half_s, "median", GREY, ":"),
        ):
            axes.axhline(value, linewidth=2.5, label=f"{name}: {value:,.2f} s", color=colour, linestyle=dash)
        axes.set(xlabel="accepted, seconds since the spike began", ylabel="wait, s", ylim=(0, 1.08 * most_s))
        legend(axes)
    caption = f"{longer:.0%} of the jobs waited longer than the mean."
    alt = (
        f"The wait of each of {wait_s.size:,} jobs over the moment it was accepted: {wait_s[0]:,.2f} s for"
        f" the first, {wait_s[-1]:,.2f} s for the last. Mean {mean_s:,.2f} s, median {half_s:,.2f} s, longest"
        f" {most_s:,.2f} s; {caption}"
    )
    return AccessibleFigure(figure, alt, caption)


def depth(log: JobLog, *, arrival_per_s: float, drain_per_s: float, spike_s: float) -> AccessibleFigure:
    """Draw the jobs accepted and not done over time, and the triangle of theory: up at λ - μ, down at μ."""
    _check(log)
    at_s, measured = log.depth()
    peak = theory.peak_depth(arrival_per_s, drain_per_s, spike_s)
    empty_s = theory.seconds_to_empty(arrival_per_s, drain_per_s, spike_s)
    with drawing(height=5.5) as (figure, axes):
        axes.fill_between(at_s, measured, step="post", color=BLUE, alpha=0.12)
        axes.step(at_s, measured, where="post", label="measured: accepted and not done", **QUEUE)
        axes.plot([0, spike_s, empty_s], [0, peak, 0], marker="X", markersize=13, label="theory", **PREDICTED)
        axes.set(xlabel=SINCE, ylabel="jobs in the system", ylim=(0, 1.1 * max(peak, float(measured.max()))))
        axes.set_xlim(left=0)
        thousands(axes.yaxis)
        legend(axes)
    alt = (
        f"Jobs in the system over time: up to {measured.max():,.0f} and back to 0 after {at_s[-1]:,.1f} s. Theory, laid"
        f" over it, is a triangle: up to {peak:,.0f} at {spike_s:,.1f} s, back to 0 after {empty_s:,.1f} s."
    )
    return AccessibleFigure(figure, alt, f"Theory with λ = {arrival_per_s:,.0f}/s and μ = {drain_per_s:,.0f}/s.")


def _check(log: JobLog) -> None:
    if not log.accepted_s.size:
        raise ConfigurationError("no job of this log was done: there is nothing to draw")


def life(job: JobLife | None, *, answer_s: float | None = None) -> AccessibleFigure:
    """Draw one job from its 202 to its result: a bar for the wait, a bar for the work, marks for the stored times.

    ``answer_s`` is the predicted time of the POST's answer, seconds. Raises :class:`ConfigurationError` for a job that
    is unknown or has not ended.
    """
    if job is None or not job.completed_at or not job.started_at:
        raise ConfigurationError("this job has not ended yet, so its time line cannot be drawn: run the cell again")
    moments = job.seconds()
    started_s, ended_s = moments["started"], moments["completed"]
    title = f"One job: {started_s:.3f} s waiting, {ended_s - started_s:.3f} s at work"
    with drawing(height=3.4, title=title) as (figure, axes):
        axes.barh(0, started_s, 0.4, color=GREY, alpha=0.35, hatch="//", edgecolor="white", label="waits in the queue")
        axes.barh(0, ended_s - started_s, 0.4, left=started_s, color=BLUE, alpha=0.5, label="the worker works")
        for name, (colour, marker) in _MARKS.items():
            label = f"{name}: {moments[name]:.3f} s"
            axes.plot([moments[name]], [0], marker, color=colour, markersize=13, label=label, clip_on=False)
        if answer_s is not None:
            axes.axvline(answer_s, label=f"202 predicted: {answer_s:.3f} s", **PREDICTED)
        axes.set(yticks=[], ylim=(-0.4, 0.4), xlabel="seconds since it was accepted: the client is free from here on")
        axes.spines["left"].set_visible(False)
        legend(axes, columns=3)
    alt = (
        f"Time line of job {job.job_id}: accepted at 0 s, started at {started_s:.3f} s, completed at {ended_s:.3f} s,"
        f" status {job.status}." + ("" if answer_s is None else f" The 202 was predicted after {answer_s:.3f} s.")
    )
    return AccessibleFigure(figure, alt, f"{job.job_id}, times as stored, to the millisecond.")
