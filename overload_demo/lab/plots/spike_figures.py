"""Figures of spikes: jobs in time, one spike beside the naive API, and several runs beside each other."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from overload_demo.errors import ConfigurationError
from overload_demo.lab import BLUE, CURVES, GREEN, GREY, GUESS, NAIVE, OFFERED, ORANGE, PREDICTED, QUEUE, SINCE, Look
from overload_demo.lab.job_log import JobLife, JobLog
from overload_demo.lab.plots.accessible_figure import AccessibleFigure, area, bars, drawing, note, predicted, with_gaps
from overload_demo.lab.result import NOT_ASKED_FOR, BaselineRun, SpikeResult
from overload_demo.lab.theory import peak_depth, seconds_to_empty
from overload_demo.load.plan import duration, intended_times

_TITLE_WIDTH = 86  # letters in a line of a figure's title
_ARRIVED: Look = {"color": GREY, "linewidth": 2.5, "linestyle": (0, (5, 1.5))}
_PLACES = ("at the door", "in the queue", "being done")


def cumulative(log: JobLog, *, peak: float | None = None, empty_s: float | None = None) -> AccessibleFigure:
    """Draw the jobs accepted so far, A(t), and the jobs done so far, D(t).

    An arrow down marks the largest gap, the peak depth; an arrow across the wait of one job. ``peak`` (jobs) and
    ``empty_s`` (seconds since the first request) are predictions, drawn as the departures that lead there.
    """
    _check_not_empty(log)
    arrived_s, left_s, jobs = np.sort(log.accepted_s), np.sort(log.done_s), log.done_s.size
    at_s, depths = log.depth()
    widest_s, deepest = at_s[np.argmax(depths)], int(depths.max())
    below = int(np.searchsorted(left_s, widest_s, "right"))
    job = int(0.7 * jobs)  # in the order of acceptance
    accepted_s, done_s = log.accepted_s[job], log.done_s[job]
    counts = np.arange(1, jobs + 1)
    departures = [(0.0, 0.0), (arrived_s[-1], None if peak is None else max(0.0, jobs - peak)), (empty_s, jobs)]
    known = [point for point in departures if None not in point]
    with drawing(height=7) as (figure, axes):
        axes.fill(np.append(arrived_s, left_s[::-1]), np.append(counts, counts[::-1]), color=BLUE, alpha=0.1)
        axes.step(arrived_s, counts, where="post", label="A(t): accepted so far", **_ARRIVED)
        axes.step(left_s, counts, where="post", label="D(t): done so far", **QUEUE)
        if len(known) > 1:
            look = PREDICTED | {"marker": "X", "markersize": 13, "clip_on": False, "zorder": 3}
            axes.plot(*zip(*known, strict=True), label="D(t) as predicted", **look)
        text = f"depth at its peak: {deepest:,} jobs"  # below the departures there is room for it
        _arrow(axes, (widest_s, below), (widest_s, below + deepest), text, (8, -8), color=ORANGE, va="top")
        text = f"job {job + 1:,}\nwaits {done_s - accepted_s:,.2f} s"
        _arrow(axes, (accepted_s, job + 1), (done_s, job + 1), text, (-10, 0), color=GREEN, ha="right", va="center")
        axes.set(xlabel=SINCE, ylabel="jobs", xlim=(0, None), ylim=(0, 1.05 * jobs))
    alt = (
        f"Two rising curves. A, jobs accepted, reaches {jobs:,} after {arrived_s[-1]:,.1f} s; D, jobs done,"
        f" lies below it and reaches the same number after {left_s[-1]:,.1f} s. The gap between them is widest after"
        f" {widest_s:,.1f} s: {deepest:,} jobs. Job number {job + 1:,} waited {done_s - accepted_s:,.2f} s."
    )
    caption = "Down: how many wait at a moment. Across: how long a job waits."
    return AccessibleFigure(figure, alt + _expected(peak, empty_s), caption)


def _arrow(axes: Axes, start: Any, end: Any, text: str, offset: tuple[float, float], **look: Any) -> None:
    """Draw a double arrow, and its text at an offset in points from its start."""
    arrow = {"arrowstyle": "<->", "linewidth": 2.5, "shrinkA": 0, "shrinkB": 0, "color": look["color"]}
    axes.annotate("", start, end, arrowprops=arrow)
    note(axes, text, start, offset, **look)


def waits(log: JobLog) -> AccessibleFigure:
    """Draw the wait of every job, from 202 to effect, over its time of acceptance, with mean, median and maximum."""
    _check_not_empty(log)
    wait_s = log.done_s - log.accepted_s
    mean_s, half_s, most_s = float(wait_s.mean()), float(np.median(wait_s)), float(wait_s.max())
    with drawing(height=5.5) as (figure, axes):
        axes.plot(log.accepted_s, wait_s, ".", color=BLUE, markersize=5, rasterized=True, label="one job")
        lines = {"longest": most_s, "mean": mean_s, "median": half_s}
        for (name, value), look in zip(lines.items(), CURVES[1:], strict=False):
            axes.axhline(value, label=f"{name}: {value:,.2f} s", **look | {"marker": "", "linewidth": 2.5})
        axes.set(xlabel=f"accepted, {SINCE}", ylabel="wait, s", ylim=(0, 1.08 * most_s))
    caption = f"{100 * float(np.mean(wait_s > mean_s)):.0f} % of the jobs waited longer than the mean."
    alt = (
        f"The wait of each of {wait_s.size:,} jobs over the moment it was accepted: {wait_s[0]:,.2f} s for"
        f" the first, {wait_s[-1]:,.2f} s for the last. Mean {mean_s:,.2f} s, median {half_s:,.2f} s, longest"
        f" {most_s:,.2f} s; {caption}"
    )
    return AccessibleFigure(figure, alt, caption)


def depth(log: JobLog, *, arrival_per_s: float, drain_per_s: float, spike_s: float) -> AccessibleFigure:
    """Draw the jobs accepted and not done over time, and the triangle of theory: up at λ - μ, down at μ."""
    _check_not_empty(log)
    at_s, measured = log.depth()
    peak = peak_depth(arrival_per_s, drain_per_s, spike_s)
    empty_s = seconds_to_empty(arrival_per_s, drain_per_s, spike_s)
    with drawing(height=5.5) as (figure, axes):
        area(axes, at_s, measured, "measured: accepted and not done", "post")
        axes.plot([0, spike_s, empty_s], [0, peak, 0], marker="X", markersize=13, label="theory", **PREDICTED)
        top = 1.1 * max(peak, float(measured.max()))
        axes.set(xlabel=SINCE, ylabel="jobs in the system", xlim=(0, None), ylim=(0, top))
    alt = (
        f"Jobs in the system over time: up to {measured.max():,.0f} and back to 0 after {at_s[-1]:,.1f} s. Theory, laid"
        f" over it, is a triangle: up to {peak:,.0f} at {spike_s:,.1f} s, back to 0 after {empty_s:,.1f} s."
    )
    return AccessibleFigure(figure, alt, f"Theory with λ = {arrival_per_s:,.0f}/s and μ = {drain_per_s:,.0f}/s.")


def _check_not_empty(log: JobLog) -> None:
    if not log.accepted_s.size:
        raise ConfigurationError("no job of this log was done: there is nothing to draw")


def life(job: JobLife | None, *, answer_s: float | None = None) -> AccessibleFigure:
    """Draw one job from its 202 to its result: a bar for the wait, a bar for the work, marks for the stored times.

    ``answer_s`` is the predicted time of the POST's answer, seconds.
    """
    if job is None or not job.completed_at or not job.started_at:
        raise ConfigurationError("this job has not ended yet, so its time line cannot be drawn: run the cell again")
    moments = job.seconds()
    started_s, ended_s = moments["started"], moments["completed"]
    title = f"One job: {duration(started_s)} waiting, {duration(ended_s - started_s)} at work"
    with drawing(height=3.4, title=title) as (figure, axes):
        axes.barh(0, started_s, 0.4, color=GREY, alpha=0.35, hatch="//", edgecolor="white", label="waits in the queue")
        axes.barh(0, ended_s - started_s, 0.4, left=started_s, color=BLUE, alpha=0.5, label="the worker works")
        for (name, at_s), look in zip(moments.items(), cycle(CURVES)):
            mark: Look = look | {"linestyle": "", "markersize": 13, "clip_on": False}
            axes.plot([at_s], [0], label=f"{name}: {duration(at_s)}", **mark)
        if answer_s is not None:
            axes.axvline(answer_s, label=f"202 predicted: {duration(answer_s)}", **PREDICTED)
        axes.set(yticks=[], ylim=(-0.4, 0.4), xlabel="seconds since it was accepted: the client is free from here on")
        axes.spines["left"].set_visible(False)
    alt = (
        f"Time line of job {job.job_id}: accepted at 0 s, started at {started_s:.3f} s, completed at {ended_s:.3f} s,"
        f" status {job.status}." + predicted("The 202 was predicted after {:.3f} s.", answer_s)
    )
    return AccessibleFigure(figure, alt, f"{job.job_id}, times as stored, to the millisecond.")


def spike(result: SpikeResult, *, peak: float | None = None, empty_s: float | None = None) -> AccessibleFigure:
    """Draw acceptance latency, queue depth and drain rate of a spike over time, with the naive API where it was run.

    Latency counts from the intended send, on a log axis that shows the tail, at the second in which the requests were
    due. The naive API has no queue: its depth is requests in flight, its drain answers a second; marks name when its
    clients begin to give up and when its load ends. ``peak`` (jobs) and ``empty_s`` (seconds since the first intended
    send) are predictions.
    """
    accepted, series, run = f"{result.accepted:,} of {result.offered:,}", result.series, result.baseline
    times, name = result.load.response_time, f"naive API ({result.baseline_source})"
    title = f"{accepted} accepted at {result.conditions.rate_per_s:,.0f}/s, {result.lost_text}"
    title = "\n".join([f"{title}, {result.duplicated:,} duplicated", *short_doubts(result)])
    notes = [f"{doubt[0].upper()}{doubt[1:]}." for doubt in result.doubts]
    if result.baseline_note != NOT_ASKED_FOR:
        notes.append(f"The naive API: {result.baseline_note}.")
    alt = (
        f"Three curves over time. {accepted} requests were accepted"
        + (f", 99 % of them within {duration(times.p99_s)}" if times else "")
        + f". The queue rises to {result.peak_queue_depth:,} jobs and is empty after {result.seconds_to_empty:,.0f} s,"
        f" drained at {result.drain_rate_per_s:,.0f} jobs a second."
    )
    with drawing(3, height=12, title=title, sharex=True) as (figure, (latency, waiting, drain)):
        due_s = _middles(series.start_s)
        latency.plot(due_s, series.acceptance_p99_s, label="queue API, p99", marker="o", **QUEUE)
        look = QUEUE | {"linewidth": 2, "linestyle": ":"}
        latency.plot(due_s, series.acceptance_p50_s, label="queue API, median", marker=".", **look)
        area(waiting, *with_gaps(series.sampled_at_s, series.queue_depth), "queue API: jobs waiting")
        drain.stairs(*series.drained_per_s(), label="queue API: jobs done", **QUEUE)
        drain.stairs(series.offered_per_s, _edges(series.start_s), label="offered", **OFFERED)
        if run:
            _naive_latency(latency, run, name)
            waiting.plot(_edges(run.series.start_s)[1:], run.series.in_flight, label=f"{name}: in flight", **NAIVE)
            edges_s, label = _edges(run.series.start_s), f"{name}: answered in time"
            drain.stairs(run.answered_per_s(), edges_s, label=label, **NAIVE)
            alt += f" The naive API, {result.baseline_source}," + _naive_end(waiting, run)
            if run.summary.verdict != "valid":
                notes.append(f"Its load was {run.summary.verdict}: {run.summary.reason}.")
        if peak is not None:
            waiting.axhline(peak, label="predicted peak", **PREDICTED)
        if empty_s is not None:
            waiting.plot([empty_s], [0], label="predicted: empty", **GUESS)
        latency.set(yscale="log", ylabel="time to the answer, s,\nby when it was due")
        waiting.set(ylabel="waiting at this moment", ylim=(0, None))
        drain.set(ylabel="per second,\nby when it happened", xlabel=SINCE, ylim=(0, None))
    return AccessibleFigure(figure, alt + _expected(peak, empty_s), " ".join(notes))


def _edges(start_s: Sequence[float]) -> list[float]:
    """Return the edges of buckets of a second."""
    return [*start_s, start_s[-1] + 1]


def _middles(start_s: Sequence[float]) -> list[float]:
    """Return the middles of buckets of a second."""
    return [start + 0.5 for start in start_s]


def _naive_latency(axes: Axes, run: BaselineRun, name: str) -> None:
    """Draw the p99 of the requests answered in time, and a cross for each second whose requests got no answer."""
    p99_s, due_s = run.series.response_p99_s, _middles(run.series.start_s)
    axes.plot(due_s, np.array(p99_s, dtype=np.float64), label=f"{name}, p99", marker="s", **NAIVE)
    times_s = zip(due_s, p99_s, run.series.offered_per_s, strict=True)
    unanswered_s = [at_s for at_s, found_s, offered in times_s if found_s is None and offered]
    if unanswered_s:
        look: Look = {"color": NAIVE["color"], "linestyle": "", "marker": "x", "markersize": 7}
        axes.plot(unanswered_s, [run.timeout_s] * len(unanswered_s), label=f"no answer in {run.timeout_s:g} s", **look)


def _naive_end(axes: Axes, run: BaselineRun) -> str:
    """Mark when the clients of the naive API begin to give up, when no more are sent, and what the API still holds.

    Return the rest of a sentence that says so.
    """
    series, load, ends_s = run.series, run.summary, _edges(run.series.start_s)[1:]
    held = series.app_in_flight[-1] if series.app_in_flight else 0
    last_s = float(intended_times(run.shape, run.requests, run.rate_per_s, run.seed)[load.planned - 1])
    moments = [(last_s, "firing stops", 8)]
    if held:
        moments.append((ends_s[-1], f"all have left; the API\nstill works on {held:,}", 8))
    gave_up_s = [start_s for start_s, failed in zip(series.start_s, series.failed_per_s, strict=True) if failed]
    if gave_up_s:
        moments.append((gave_up_s[0], "clients give up", 30))  # above the other one
    for at_s, name, above in moments:
        at = at_s, float(np.interp(at_s, ends_s, series.in_flight))
        look: Look = {"color": NAIVE["color"], "weight": "bold", "fontsize": 13}
        note(axes, name, at, (4, above), arrowprops={"arrowstyle": "-", "color": NAIVE["color"]}, **look)
    most = max(series.in_flight, default=0)
    text = f" answered {load.accepted:,} of {load.planned:,} requests, with up to {most:,.0f} in flight."
    text += f" Its clients give up from {gave_up_s[0]:,.0f} s on." if gave_up_s else ""
    left = f"the API still works on {held:,} requests" if held else "the API has no request left"
    return f"{text} Firing stops at {last_s:,.0f} s; after {ends_s[-1]:,.0f} s no client waits, and {left}."


def _expected(peak: float | None, empty_s: float | None) -> str:
    """Return the predictions of a peak, jobs, and of the time to empty as sentences."""
    text = predicted("A peak of {:,.0f} jobs was predicted.", peak)
    return text + predicted("It was predicted to be empty after {:,.1f} s.", empty_s)


def short_doubts(result: SpikeResult, name: str = "") -> list[str]:
    """Return a result's doubts for a title: a line each, after the run's name, cut to the width of a figure."""
    lines = [f"{name}: {doubt}" if name else doubt for doubt in result.doubts]
    return [textwrap.shorten(line, _TITLE_WIDTH, placeholder=" …") for line in lines]


def drains(results: Mapping[str, SpikeResult]) -> AccessibleFigure:
    """Draw jobs done a second over time, a curve a run, and the mean of each, for runs of equally many requests."""
    _check_comparable({name: result.offered for name, result in results.items()})
    doubts = [doubt for name, result in results.items() for doubt in short_doubts(result, name)]
    title = "\n".join(["Jobs done a second", *doubts])
    with drawing(height=5 + 0.4 * len(doubts), title=title) as (figure, axes):
        for (name, result), look in zip(results.items(), cycle(CURVES)):
            label = f"{name}: {result.drain_rate_per_s:,.0f}/s on average"
            line: Look = {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 3}
            axes.stairs(*result.series.drained_per_s(), label=label, **line)
        axes.set(xlabel=SINCE, ylim=(0, None))
    means = "; ".join(f"{name}: {one.drain_rate_per_s:,.0f} jobs a second" for name, one in results.items())
    return AccessibleFigure(figure, " ".join([f"Drain rate over time. {means} on average.", *doubts]))


def where_the_waiting_went(logs: Mapping[str, JobLog]) -> AccessibleFigure:
    """Draw the mean time of a job by place, a bar a run: intended send to 202, to start, to effect.

    The label of a run counts its requests that are not in the mean. All runs must have equally many requests.
    """
    _check_comparable({name: log.offered for name, log in logs.items()})
    labels, means_s = [_counted(name, log) for name, log in logs.items()], [log.mean_stays_s for log in logs.values()]
    texts = [
        ", ".join(f"{duration(mean_s)} {place}" for place, mean_s in zip(_PLACES, run, strict=True)) for run in means_s
    ]
    with drawing(height=1.8 + 1.4 * len(logs), title="Mean time of a job, by place") as (figure, axes):
        bars(axes, labels, dict(zip(_PLACES, zip(*means_s, strict=True), strict=True)))
        for row, text in enumerate(texts):
            note(axes, text, (0, row - 0.32), (6, 2), va="bottom")
        axes.set(xlabel="seconds", ylim=(len(logs) - 0.6, -0.75))
    parts = "; ".join(f"{name}: {text}" for name, text in zip(logs, texts, strict=True))
    counts = "".join(f" {label}.".replace("\n", ": ") for label in labels)
    caption = "A time that is short beside the whole bar is too thin to see; it stands above the bar."
    return AccessibleFigure(figure, f"One bar a run, mean time of a job. {parts}.{counts}", caption)


def _counted(name: str, log: JobLog) -> str:
    missing = log.offered - log.done_s.size
    return f"{name}\n{missing:,} of {log.offered:,} not done" if missing else f"{name}\nall {log.offered:,}"


def _check_comparable(requests: Mapping[str, int]) -> None:
    if len(set(requests.values())) > 1:
        counts = ", ".join(f"{name} {count:,}" for name, count in requests.items())
        raise ConfigurationError(f"no fair comparison: the runs had different numbers of requests ({counts})")
