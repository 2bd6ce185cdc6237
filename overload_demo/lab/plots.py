"""Figures. Every figure is drawn from a result, never from live objects, so a recorded run draws the same picture.

Colour-blind safe (Okabe-Ito), dashes besides colours, white ground, lines and text a projector can carry.
"""

import base64
import html
import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from overload_demo.lab.result import SpikeResult

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
QUEUE: dict[str, Any] = {"color": BLUE, "linewidth": 3}
NAIVE: dict[str, Any] = {"color": ORANGE, "linewidth": 3, "linestyle": (0, (4, 1.5))}
STYLE: Any = {
    "font.size": 15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "legend.frameon": False,
}


def trio(result: SpikeResult) -> Figure:
    """Acceptance latency, queue depth and drain rate of a spike over time, the naive API laid over where it was run.

    Latency counts from the intended send. For the naive API, which has no queue, depth is requests in flight and drain
    is answers a second. A log axis for latency: a tail is seen, not averaged away.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 12), layout="constrained")
        latency, depth, drain = figure.subplots(3, 1, sharex=True)
        _latency(latency, result)
        _depth(depth, result)
        _drain(drain, result)
        drain.set_xlabel("seconds since the spike began")
        figure.suptitle(_title(result), fontsize=18, x=0.01, ha="left")
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG."""
    figure.savefig(path, dpi=100)
    return path


def figure_html(figure: Figure, alt: str, caption: str = "") -> str:
    """The figure as an HTML ``<figure>`` whose alt text survives in JupyterLab; ``alt`` must say what is to be seen."""
    if not alt.strip():
        raise ValueError("a figure needs an alt text")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img style="max-width:100%" alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def describe(result: SpikeResult) -> str:
    """What the trio shows, in words, computed from the data: its alt text."""
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


def _title(result: SpikeResult) -> str:
    return (
        f"{result.accepted:,} of {result.offered:,} accepted at {result.conditions.rate_per_s:,.0f}/s, "
        f"{result.lost:,} lost, {result.duplicated:,} duplicated"
    )


def _latency(axes: Axes, result: SpikeResult) -> None:
    series = result.series
    p99, p50 = _numbers(series.acceptance_p99_s), _numbers(series.acceptance_p50_s)
    axes.plot(series.start_s, p99, label="queue API, p99", **QUEUE)
    axes.plot(series.start_s, p50, label="queue API, median", **QUEUE | {"linewidth": 2, "linestyle": ":"})
    if result.baseline:
        naive = result.baseline.series
        axes.plot(naive.start_s, _numbers(naive.response_p99_s), label=_naive(result, "p99"), **NAIVE)
        given_up = f"its clients give up, {result.baseline.timeout_s:g} s"
        axes.axhline(result.baseline.timeout_s, color=GREY, linewidth=2, linestyle=":", label=given_up)
    axes.set_yscale("log")
    axes.set_ylabel("time to the answer, s")
    _legend(axes)


def _depth(axes: Axes, result: SpikeResult) -> None:
    series = result.series
    axes.fill_between(series.sampled_at_s, series.queue_depth, color=BLUE, alpha=0.15)
    axes.plot(series.sampled_at_s, series.queue_depth, label="queue API: jobs waiting", **QUEUE)
    if result.baseline:
        naive = result.baseline.series
        axes.plot(naive.start_s, naive.in_flight, label=_naive(result, "requests in flight"), **NAIVE)
    axes.set_ylabel("queue depth")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _legend(axes)


def _drain(axes: Axes, result: SpikeResult) -> None:
    at_s, rates = result.series.drained_per_s()
    axes.plot(at_s, rates, label="queue API: jobs done", **QUEUE)
    axes.plot(
        result.series.start_s, result.series.offered_per_s, color=GREY, linewidth=2, linestyle=":", label="offered"
    )
    if result.baseline:
        naive = result.baseline.series
        axes.plot(naive.start_s, naive.accepted_per_s, label=_naive(result, "answered in time"), **NAIVE)
    axes.set_ylabel("per second")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Above the curves, where it hides none of them."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.1, columnspacing=1.2, fontsize=13)


def _naive(result: SpikeResult, what: str) -> str:
    return f"naive API ({result.baseline_source}): {what}"


def _numbers(values: list[float | None]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.array([np.nan if value is None else value for value in values])
