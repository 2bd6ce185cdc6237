"""The picture of the comparison: two panels of bars, the fastest on top, ours in colour. Drawn from the record."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from experiments.bench.peers.comparison import ACCEPTED, DONE, Comparison
from experiments.bench.peers.libraries import OURS
from overload_demo.lab.colours import BLUE
from overload_demo.lab.plots.accessible_figure import drawing

PEER, SPREAD = "#bbbbbb", "#333333"


def draw(comparison: Comparison, path: Path) -> Path:
    """Write a PNG; bars are medians, lines reach from the slowest round to the fastest. The axes are logarithmic."""
    endpoints = {one.about.name: one.about.endpoint for one in comparison.contestants}
    workers = {worker.name: worker.at_once for one in comparison.contestants for worker in one.about.workers}
    accepted, done = comparison.rates(ACCEPTED), comparison.rates(DONE)
    place, rounds = comparison.place, len(accepted[OURS.name])
    height = 2 + 0.64 * max(len(accepted), len(done))
    where = f"{place.environment.cores} cores, {place.filesystem}; median of {rounds}, slowest to fastest"
    title = f"Job queues, each on a Redis with an fsync before every reply ({where})"
    with drawing(1, 2, height=height, width=16, title=title) as (figure, (left, right)):
        _bars(left, accepted, endpoints, "jobs accepted a second by one API process (log scale)")
        _bars(right, done, workers, "empty jobs done a second by one worker (log scale)")
        figure.savefig(path, dpi=100)
    return path


def _bars(axes: Axes, rates: dict[str, list[float]], remarks: Mapping[str, str], what: str) -> None:
    names, rows = list(rates), range(len(rates))
    medians = [statistics.median(rates[name]) for name in names]
    below = [middle - min(rates[name]) for name, middle in zip(names, medians, strict=True)]
    above = [max(rates[name]) - middle for name, middle in zip(names, medians, strict=True)]
    axes.barh(rows, medians, color=[BLUE if name == OURS.name else PEER for name in names], height=0.72)
    axes.errorbar(medians, rows, xerr=[below, above], fmt="none", ecolor=SPREAD, capsize=4, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_xlim(10 ** math.floor(math.log10(min(medians))), 5 * max(map(max, rates.values())))
    for row, name in zip(rows, names, strict=True):
        at = (max(rates[name]), row)
        axes.annotate(f"{medians[row]:,.0f}", at, (9, 0), textcoords="offset points", va="center")
    axes.set_yticks(rows, [f"{name}\n{remarks[name]}" for name in names], fontsize=12)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel(what)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
