"""The naive API in the figure of a spike: its latency, and why its curve of requests in flight falls."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from overload_demo.lab import NAIVE, Look
from overload_demo.lab.plots.accessible_figure import note
from overload_demo.lab.result import BaselineRun
from overload_demo.load.plan import intended_times


def edges(start_s: Sequence[float]) -> list[float]:
    """Return the edges of buckets of a second."""
    return [*start_s, start_s[-1] + 1]


def middles(start_s: Sequence[float]) -> list[float]:
    """Return the middles of buckets of a second."""
    return [start + 0.5 for start in start_s]


def draw_latency(axes: Axes, run: BaselineRun, name: str) -> None:
    """Draw the p99 of the requests answered in time, and a cross for each second whose requests got no answer."""
    p99_s, due_s = run.series.response_p99_s, middles(run.series.start_s)
    axes.plot(due_s, np.array(p99_s, dtype=np.float64), label=f"{name}, p99", marker="s", **NAIVE)
    times_s = zip(due_s, p99_s, run.series.offered_per_s, strict=True)
    unanswered_s = [at_s for at_s, found_s, offered in times_s if found_s is None and offered]
    if unanswered_s:
        look: Look = {"color": NAIVE["color"], "linestyle": "", "marker": "x", "markersize": 7}
        axes.plot(unanswered_s, [run.timeout_s] * len(unanswered_s), label=f"no answer in {run.timeout_s:g} s", **look)


def mark_the_end(axes: Axes, run: BaselineRun) -> str:
    """Mark when the clients of the naive API begin to give up, when no more are sent, and what the API still holds.

    Return the rest of a sentence that says so.
    """
    series, load, ends_s = run.series, run.summary, edges(run.series.start_s)[1:]
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
