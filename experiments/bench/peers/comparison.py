"""The record of the comparison, a row for each peer and measurement, and its figure."""

import math
import shlex
import statistics
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from pydantic import BaseModel, ConfigDict

from experiments.bench.peers.libraries import OURS, Library
from experiments.bench.record import Benchmark, Place
from overload_demo.lab import BLUE
from overload_demo.lab.plots.accessible_figure import drawing

ACCEPTED, DONE = "accepted/s", "done/s"


class Recorded(BaseModel):
    """A library as it was measured; ``jobs`` is the length of a drain, by worker."""

    model_config = ConfigDict(frozen=True)

    about: Library
    versions: dict[str, str]
    jobs: dict[str, int]


class Comparison(Benchmark):
    """Rows named by peer, at least one for each unit, :data:`ACCEPTED` and :data:`DONE`."""

    contestants: list[Recorded]

    def rates(self, unit: str) -> dict[str, list[float]]:
        """Return what was measured in a unit by name, this package included, the fastest first."""
        rows = [row for row in self.rows if row.unit == unit]
        found = {OURS.name: rows[0].ours} | {row.what: row.theirs for row in rows}
        return dict(sorted(found.items(), key=lambda one: -statistics.median(one[1])))


def without_paths(place: Place) -> Place:
    """Return the place with only the last part of each path in its command."""
    words = (Path(word).name if "/" in word else word for word in shlex.split(place.command))
    return place.model_copy(update={"command": shlex.join(words)})


def draw(comparison: Comparison, path: Path) -> Path:
    """Write a PNG: bars are medians, lines reach from the slowest round to the fastest, on logarithmic axes."""
    endpoints = {one.about.name: one.about.endpoint for one in comparison.contestants}
    workers = {worker.name: worker.at_once for one in comparison.contestants for worker in one.about.workers}
    accepted, done, place = comparison.rates(ACCEPTED), comparison.rates(DONE), comparison.place
    spread = f"median of {len(accepted[OURS.name])}, slowest to fastest"
    where = f"{place.environment.cores} cores, {place.filesystem}; {spread}"
    title = f"Job queues, each on a Redis with an fsync before every reply ({where})"
    height = 2 + 0.64 * max(len(accepted), len(done))
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
    axes.barh(rows, medians, color=[BLUE if name == OURS.name else "#bbbbbb" for name in names], height=0.72)
    axes.errorbar(medians, rows, xerr=[below, above], fmt="none", ecolor="#333333", capsize=4, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_xlim(10 ** math.floor(math.log10(min(medians))), 5 * max(map(max, rates.values())))
    for row, name in zip(rows, names, strict=True):
        at = (max(rates[name]), row)
        axes.annotate(f"{medians[row]:,.0f}", at, (9, 0), textcoords="offset points", va="center")
    axes.set_yticks(rows, [f"{name}\n{remarks[name]}" for name in names], fontsize=12)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set(axisbelow=True, xlabel=what)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
