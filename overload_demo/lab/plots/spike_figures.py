"""Figures of spikes: latency, depth and drain of one; drain rates and places of waiting of several."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from overload_demo.errors import ConfigurationError
from overload_demo.lab.colours import BLUE, GREEN, GREY, NAIVE, OFFERED, ORANGE, PREDICTED, QUEUE
from overload_demo.lab.job_log import JobLog
from overload_demo.lab.plots.accessible_figure import SINCE, AccessibleFigure, drawing, expected, legend, thousands
from overload_demo.lab.result import NOT_ASKED_FOR, SpikeResult

_TITLE_WIDTH = 86  # letters in a line of a figure's title
_PLACES = (("at the door", ORANGE, "//"), ("in the queue", BLUE, ""), ("being done", GREEN, "xx"))
_LINES = ((BLUE, "-"), (ORANGE, (0, (4, 1.5))), (GREEN, (0, (1, 1))), (GREY, "-."))


def spike(result: SpikeResult, *, peak: float | None = None, empty_s: float | None = None) -> AccessibleFigure:
    """Draw acceptance latency, queue depth and drain rate of a spike over time, with the naive API where it was run.

    Latency counts from the intended send, on a log axis that shows the tail. The naive API has no queue: its depth is
    requests in flight, its drain answers a second. ``peak`` (jobs) and ``empty_s`` (seconds since the first intended
    send) are predictions.
    """
    title = (
        f"{result.accepted:,} of {result.offered:,} accepted at {result.conditions.rate_per_s:,.0f}/s, "
        f"{result.lost:,} lost, {result.duplicated:,} duplicated"
    )
    title = "\n".join([title, *short_doubts(result)])
    with drawing(3, height=12, title=title, sharex=True) as (figure, (latency, depth, drain)):
        _latency(latency, result)
        _depth(depth, result, peak, empty_s)
        _drain(drain, result)
        drain.set_xlabel(SINCE)
    notes = [f"{doubt[0].upper()}{doubt[1:]}." for doubt in result.doubts]
    if result.baseline_note != NOT_ASKED_FOR:
        notes.append(f"The naive API: {result.baseline_note}.")
    if result.baseline is not None and result.baseline.summary.verdict != "valid":
        notes.append(f"Its load was {result.baseline.summary.verdict}: {result.baseline.summary.reason}.")
    return AccessibleFigure(figure, _spike_text(result) + expected(peak, empty_s), " ".join(notes))


def _spike_text(result: SpikeResult) -> str:
    times = result.load.response_time
    text = (
        f"Three curves over time. {result.accepted:,} of {result.offered:,} requests were accepted"
        + (f", 99 % of them within {times.p99_s * 1000:,.0f} ms" if times else "")
        + f". The queue rises to {result.peak_queue_depth:,} jobs and is empty after {result.seconds_to_empty:,.0f} s,"
        f" drained at {result.drain_rate_per_s:,.0f} jobs a second."
    )
    if result.baseline is not None:
        summary = result.baseline.summary
        text += (
            f" The naive API, {result.baseline_source}, answered {summary.accepted:,} of {summary.planned:,} requests,"
            f" with up to {max(result.baseline.series.in_flight, default=0):,.0f} in flight."
        )
    return text


def short_doubts(result: SpikeResult, name: str = "") -> list[str]:
    """Return a result's doubts for a title: a line each, after the run's name, cut to the width of a figure."""
    lines = [f"{name}: {doubt}" if name else doubt for doubt in result.doubts]
    return [textwrap.shorten(line, _TITLE_WIDTH, placeholder=" …") for line in lines]


def _latency(axes: Axes, result: SpikeResult) -> None:
    series = result.series
    p99, p50 = with_gaps(series.acceptance_p99_s), with_gaps(series.acceptance_p50_s)
    axes.plot(series.start_s, p99, label="queue API, p99", marker="o", **QUEUE)
    axes.plot(series.start_s, p50, label="queue API, median", marker=".", **QUEUE | {"linewidth": 2, "linestyle": ":"})
    if result.baseline:
        naive = result.baseline.series
        axes.plot(naive.start_s, with_gaps(naive.response_p99_s), label=_naive(result, "p99"), marker="s", **NAIVE)
        given_up = f"its clients give up, {result.baseline.timeout_s:g} s"
        axes.axhline(result.baseline.timeout_s, label=given_up, **OFFERED)
    axes.set(yscale="log", ylabel="time to the answer, s")
    _plain(axes.yaxis)
    legend(axes)


def _plain(axis: Any) -> None:
    """Write the numbers on this logarithmic axis, already drawn on, as 0.01 and not as a power of ten."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def with_gaps(values: Sequence[float | None]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the values as an array; None becomes NaN, a gap in the curve."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _depth(axes: Axes, result: SpikeResult, peak: float | None, empty_s: float | None) -> None:
    series = result.series
    axes.fill_between(series.sampled_at_s, series.queue_depth, color=BLUE, alpha=0.15)
    axes.plot(series.sampled_at_s, series.queue_depth, label="queue API: jobs waiting", **QUEUE)
    if result.baseline:
        naive = result.baseline.series
        axes.plot(naive.start_s, naive.in_flight, label=_naive(result, "requests in flight"), **NAIVE)
    if peak is not None:
        axes.axhline(peak, label="predicted peak", **PREDICTED)
    if empty_s is not None:
        axes.plot([empty_s], [0], label="predicted: empty", marker="X", markersize=16, clip_on=False, **PREDICTED)
    axes.set_ylabel("queue depth")
    thousands(axes.yaxis)
    legend(axes)


def _drain(axes: Axes, result: SpikeResult) -> None:
    at_s, rates = result.series.drained_per_s()
    axes.plot(at_s, rates, label="queue API: jobs done", **QUEUE)
    axes.plot(result.series.start_s, result.series.offered_per_s, label="offered", **OFFERED)
    if result.baseline:
        naive = result.baseline.series
        axes.plot(naive.start_s, result.baseline.answered_per_s(), label=_naive(result, "answered in time"), **NAIVE)
    axes.set_ylabel("per second")
    axes.set_ylim(bottom=0)
    thousands(axes.yaxis)
    legend(axes)


def _naive(result: SpikeResult, what: str) -> str:
    return f"naive API ({result.baseline_source}): {what}"


def drains(results: Mapping[str, SpikeResult]) -> AccessibleFigure:
    """Draw jobs done a second over time, a curve a run, and the mean of each.

    Raises :class:`ConfigurationError` for runs of different numbers of requests.
    """
    _check_comparable({name: result.offered for name, result in results.items()})
    doubts = [f"\n{doubt}" for name, result in results.items() for doubt in short_doubts(result, name)]
    with drawing(height=5 + 0.4 * len(doubts), title="".join(["Jobs done a second", *doubts])) as (figure, axes):
        for (name, result), (colour, dash) in zip(results.items(), cycle(_LINES)):
            label = f"{name}: {result.drain_rate_per_s:,.0f}/s on average"
            axes.plot(*result.series.drained_per_s(), color=colour, linestyle=dash, linewidth=3, label=label)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(SINCE)
        thousands(axes.yaxis)
        legend(axes)
    means = "; ".join(f"{name}: {one.drain_rate_per_s:,.0f} jobs a second" for name, one in results.items())
    return AccessibleFigure(figure, "".join([f"Drain rate over time. {means} on average.", *doubts]).replace("\n", " "))


def where_the_waiting_went(logs: Mapping[str, JobLog]) -> AccessibleFigure:
    """Draw the mean time of a job by place, a bar a run: intended send to 202, to start, to effect.

    The label of a run counts its requests that are not in the mean. Raises :class:`ConfigurationError` for runs of
    different numbers of requests.
    """
    _check_comparable({name: log.offered for name, log in logs.items()})
    texts, labels = [], [_counted(name, log) for name, log in logs.items()]
    with drawing(height=1.8 + 1.4 * len(logs), title="Mean time of a job, by place") as (figure, axes):
        for row, (name, log) in enumerate(logs.items()):
            queued_s = np.maximum(0, log.started_s - log.accepted_s)
            stays = (log.accepted_s - log.intended_s, queued_s, log.done_s - log.started_s)
            means_s, left = [float(np.mean(stay)) for stay in stays], 0.0
            for (place, colour, hatch), width in zip(_PLACES, means_s, strict=True):
                label = place if row == 0 else None
                axes.barh(row, width, 0.55, left, color=colour, hatch=hatch, edgecolor="white", label=label)
                left += width
            parts = ", ".join(f"{width:.2g} s {place}" for (place, *_), width in zip(_PLACES, means_s, strict=True))
            axes.text(0, row - 0.32, f" {parts}", va="bottom")
            texts.append(f"{name}: {parts}")
        axes.set_yticks(range(len(logs)), labels)
        axes.set_ylim(len(logs) - 0.6, -0.75)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("seconds")
        legend(axes)
    counts = "".join(f" {label}.".replace("\n", ": ") for label in labels)
    return AccessibleFigure(figure, f"One bar a run, mean time of a job. {'; '.join(texts)}.{counts}")


def _counted(name: str, log: JobLog) -> str:
    missing = log.offered - log.done_s.size
    return f"{name}\n{missing:,} of {log.offered:,} not done" if missing else f"{name}\nall {log.offered:,}"


def _check_comparable(requests: Mapping[str, int]) -> None:
    if len(set(requests.values())) > 1:
        counts = ", ".join(f"{name} {count:,}" for name, count in requests.items())
        raise ConfigurationError(f"no fair comparison: the runs had different numbers of requests ({counts})")
