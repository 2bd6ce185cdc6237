"""The three curves of a spike: acceptance latency, queue depth, drain rate."""

import textwrap

from matplotlib.axes import Axes

from overload_demo.lab.colours import GREY
from overload_demo.lab.plots.accessible_figure import (
    NAIVE,
    OFFERED,
    PREDICTED,
    QUEUE,
    AccessibleFigure,
    drawing,
    legend,
    numbers,
    plain,
    thousands,
)
from overload_demo.lab.result import NOT_ASKED_FOR, SpikeResult

_TITLE_WIDTH = 86  # letters in a line of a figure's title


def spike(result: SpikeResult, *, peak: float | None = None, empty_s: float | None = None) -> AccessibleFigure:
    """Acceptance latency, queue depth and drain rate of a spike over time, the naive API laid over where it was run.

    Latency counts from the intended send, on a log axis: a tail is seen, not averaged away. For the naive API, which
    has no queue, depth is requests in flight and drain is answers a second. ``peak`` (jobs) and ``empty_s`` (seconds
    since the first intended send) are predictions, drawn where they were expected.
    """
    with drawing(3, height=12, title=_title(result), sharex=True) as (figure, (latency, depth, drain)):
        _latency(latency, result)
        _depth(depth, result, peak, empty_s)
        _drain(drain, result)
        drain.set_xlabel("seconds since the spike began")
    said = [] if result.baseline_note == NOT_ASKED_FOR else [f"The naive API: {result.baseline_note}."]
    if result.baseline is not None and result.baseline.summary.verdict != "valid":
        said.append(f"Its load was {result.baseline.summary.verdict}: {result.baseline.summary.reason}.")
    caption = " ".join([*(f"{doubt[0].upper()}{doubt[1:]}." for doubt in result.doubts), *said])
    return AccessibleFigure(figure, _in_words(result, peak, empty_s), caption)


def _in_words(result: SpikeResult, peak: float | None, empty_s: float | None) -> str:
    times = result.load.response_time
    text = (
        f"Three curves over time. {result.accepted:,} of {result.offered:,} requests were accepted"
        + (f", 99 % of them within {times.p99_s * 1000:,.0f} ms" if times else "")
        + f". The queue rises to {result.peak_queue_depth:,} jobs and is empty after {result.seconds_to_empty:,.0f} s,"
        f" drained at {result.drain_rate_per_s:,.0f} jobs a second."
    )
    if peak is not None:
        text += f" A peak of {peak:,.0f} jobs was predicted."
    if empty_s is not None:
        text += f" It was predicted to be empty after {empty_s:,.0f} s."
    if result.baseline is not None:
        summary = result.baseline.summary
        text += (
            f" The naive API, {result.baseline_source}, answered {summary.accepted:,} of {summary.planned:,} requests,"
            f" with up to {max(result.baseline.series.in_flight, default=0):,.0f} in flight."
        )
    return text


def _title(result: SpikeResult) -> str:
    return (
        f"{result.accepted:,} of {result.offered:,} accepted at {result.conditions.rate_per_s:,.0f}/s, "
        f"{result.lost:,} lost, {result.duplicated:,} duplicated"
    ) + "".join(f"\n{doubt}" for doubt in short_doubts(result))


def short_doubts(result: SpikeResult, name: str = "") -> list[str]:
    """A result's doubts for a title: cut to the width of a figure, a line each, after the run's name if it has one."""
    said = [f"{name}: {doubt}" if name else doubt for doubt in result.doubts]
    return [textwrap.shorten(line, _TITLE_WIDTH, placeholder=" …") for line in said]


def _latency(axes: Axes, result: SpikeResult) -> None:
    series = result.series
    p99, p50 = numbers(series.acceptance_p99_s), numbers(series.acceptance_p50_s)
    axes.plot(series.start_s, p99, label="queue API, p99", marker="o", **QUEUE)
    axes.plot(series.start_s, p50, label="queue API, median", marker=".", **QUEUE | {"linewidth": 2, "linestyle": ":"})
    if result.baseline:
        naive = result.baseline.series
        axes.plot(naive.start_s, numbers(naive.response_p99_s), label=_naive(result, "p99"), marker="s", **NAIVE)
        given_up = f"its clients give up, {result.baseline.timeout_s:g} s"
        axes.axhline(result.baseline.timeout_s, color=GREY, linewidth=2, linestyle=":", label=given_up)
    axes.set_yscale("log")
    plain(axes.yaxis)
    axes.set_ylabel("time to the answer, s")
    legend(axes)


def _depth(axes: Axes, result: SpikeResult, peak: float | None, empty_s: float | None) -> None:
    series = result.series
    axes.fill_between(series.sampled_at_s, series.queue_depth, color=QUEUE["color"], alpha=0.15)
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
