"""Runs beside each other: where the waiting went, and how fast they drained."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np

from overload_demo.errors import ConfigurationError
from overload_demo.lab.colours import BLUE, GREEN, GREY, ORANGE
from overload_demo.lab.job_log import JobLog
from overload_demo.lab.plots.accessible_figure import AccessibleFigure, drawing, legend, thousands
from overload_demo.lab.plots.spike_figures import short_doubts
from overload_demo.lab.result import SpikeResult

_PLACES = (("at the door", ORANGE, "//"), ("in the queue", BLUE, ""), ("being done", GREEN, "xx"))
_LINES = ((BLUE, "-"), (ORANGE, (0, (4, 1.5))), (GREEN, (0, (1, 1))), (GREY, "-."))


def where_the_waiting_went(logs: Mapping[str, JobLog]) -> AccessibleFigure:
    """Mean time of a job by place, a bar a run: from the intended send to the 202, to its start, to its effect.

    The label of a run says how many of its requests are not in the mean. Raises :class:`ConfigurationError` for runs
    of different numbers of requests.
    """
    _comparable({name: log.offered for name, log in logs.items()})
    means = {name: _means(log) for name, log in logs.items()}
    told = []
    with drawing(height=1.8 + 1.4 * len(logs), title="Mean time of a job, by place") as (figure, axes):
        for row, (name, seconds) in enumerate(means.items()):
            left = 0.0
            for (place, colour, hatch), width in zip(_PLACES, seconds, strict=True):
                label = place if row == 0 else None
                axes.barh(row, width, 0.55, left, color=colour, hatch=hatch, edgecolor="white", label=label)
                left += width
            parts = ", ".join(f"{width:.2g} s {place}" for (place, *_), width in zip(_PLACES, seconds, strict=True))
            axes.text(0, row - 0.32, f" {parts}", va="bottom")
            told.append(f"{name}: {parts}")
        axes.set_yticks(range(len(means)), [_counted(name, log) for name, log in logs.items()])
        axes.set_ylim(len(means) - 0.6, -0.75)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("seconds")
        legend(axes)
    text = f"One bar a run, mean time of a job. {'; '.join(told)}."
    return AccessibleFigure(
        figure, " ".join([text, *(f"{_counted(name, log)}." for name, log in logs.items())]).replace("\n", ": ")
    )


def _counted(name: str, log: JobLog) -> str:
    missing = log.offered - log.done_s.size
    return f"{name}\n{missing:,} of {log.offered:,} not done" if missing else f"{name}\nall {log.offered:,}"


def _comparable(requests: Mapping[str, int]) -> None:
    if len(set(requests.values())) > 1:
        counts = ", ".join(f"{name} {count:,}" for name, count in requests.items())
        raise ConfigurationError(f"no fair comparison: the runs had different numbers of requests ({counts})")


def _means(log: JobLog) -> tuple[float, float, float]:
    at_door, queued = log.accepted_s - log.intended_s, np.maximum(0, log.started_s - log.accepted_s)
    return float(np.mean(at_door)), float(np.mean(queued)), float(np.mean(log.done_s - log.started_s))


def drains(results: Mapping[str, SpikeResult]) -> AccessibleFigure:
    """Jobs done a second over time, a curve a run, and the mean of each.

    Raises :class:`ConfigurationError` for runs of different numbers of requests.
    """
    _comparable({name: result.offered for name, result in results.items()})
    doubts = [f"\n{doubt}" for name, result in results.items() for doubt in short_doubts(result, name)]
    with drawing(height=5 + 0.4 * len(doubts), title="".join(["Jobs done a second", *doubts])) as (figure, axes):
        for (name, result), (colour, dash) in zip(results.items(), cycle(_LINES)):
            at_s, rates = result.series.drained_per_s()
            axes.plot(at_s, rates, color=colour, linestyle=dash, linewidth=3, label=_with_mean(name, result))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds since the spike began")
        thousands(axes.yaxis)
        legend(axes)
    told = "; ".join(f"{name}: {one.drain_rate_per_s:,.0f} jobs a second" for name, one in results.items())
    return AccessibleFigure(figure, "".join([f"Drain rate over time. {told} on average.", *doubts]).replace("\n", " "))


def _with_mean(name: str, result: SpikeResult) -> str:
    return f"{name}: {result.drain_rate_per_s:,.0f}/s on average"
