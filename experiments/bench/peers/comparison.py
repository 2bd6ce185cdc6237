"""The record of the comparison, a row for each peer and measurement, and its figure."""

import math
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.bench.peers.libraries import OURS, Library, Recorded
from experiments.bench.record import RESULTS, Benchmark, Facts, Place, Row
from overload_demo.lab import BLUE, GREY, about
from overload_demo.lab.plots.accessible_figure import drawing

# The units of the rows. A drain has a row for each worker, everything else for each library.
CONNECTIONS = (64, 256)
ACCEPTED_AT = "64 connections", "256 connections"
ACCEPTED = tuple(f"accepted/s, {connections} connections" for connections in CONNECTIONS)
DONE = "done/s"
IDLE = "ms from POST to done, idle"
MIXED, MIXED_P99 = "requests/s, one POST to five polls", "p99 ms, one POST to five polls"
LESS_IS_BETTER = {IDLE, MIXED_P99}


class Part(Benchmark):
    """One run: some libraries, some measurements, each round in turn with this package."""

    contestants: list[Recorded]


@dataclass(frozen=True)
class Summary:
    """What was measured of a library; a list is empty if it was not, and ``best`` is ``how`` its fastest worker ran."""

    library: Library
    version: str
    accepted: tuple[list[float], list[float]]
    done: list[float]
    how: str
    one_at_a_time: list[float]
    idle_ms: list[float]


class Comparison(Facts):
    """The newest measurement of everything, each row in the run that measured it."""

    schema_version: Literal[2] = 2
    parts: list[Part]

    @classmethod
    def read(cls, folder: Path = RESULTS) -> Self:
        """Read ``bench_peers.json``; empty if there is none."""
        path = folder / "bench_peers.json"
        return cls.model_validate_json(path.read_bytes()) if path.exists() else cls(parts=[])

    def write(self, folder: Path = RESULTS) -> None:
        """Write ``bench_peers.json`` and its figure."""
        (folder / "bench_peers.json").write_text(self.model_dump_json(indent=1) + "\n")
        draw(self, folder / "bench_peers.png")

    def with_part(self, new: Part) -> "Comparison":
        """Return the comparison with a newer run; its rows replace the same rows of older runs."""
        measured, kept = {(row.unit, row.what) for row in new.rows}, []
        for part in self.parts:
            if rows := [row for row in part.rows if (row.unit, row.what) not in measured]:
                kept.append(part.model_copy(update={"rows": rows}))
        return Comparison(parts=[*kept, new])

    def rows(self, unit: str) -> dict[str, Row]:
        """Return the rows of a unit by what they measured."""
        return {row.what: row for part in self.parts for row in part.rows if row.unit == unit}

    def rates(self, unit: str) -> dict[str, list[float]]:
        """Return what was measured in a unit by name, the highest first; of this package, in the newest run."""
        found = {what: row.theirs for what, row in self.rows(unit).items()}
        runs: dict[tuple[float, ...], None] = {}
        for part in self.parts:  # the newest is the last
            runs = dict.fromkeys(tuple(row.ours) for row in part.rows if row.unit == unit) or runs
        if runs:
            found[OURS.row(OURS.workers[0]) if unit == DONE else OURS.name] = [value for run in runs for value in run]
        return dict(sorted(found.items(), key=lambda one: -statistics.median(one[1])))

    def summaries(self) -> list[Summary]:
        """Return every library that was measured, this package first, then by the acceptance of its API."""
        newest = {one.about.name: one for part in self.parts for one in part.contestants}
        accepted, done, idle = [self.rates(unit) for unit in ACCEPTED], self.rates(DONE), self.rates(IDLE)
        found = []
        for name, one in newest.items():
            workers = {one.about.row(worker): worker for worker in one.about.workers}
            drained = [row for row in done if row in workers]  # the fastest first
            alone = [row for row in drained if workers[row].at_once == 1]
            summary = Summary(
                library=one.about,
                version="" if name == OURS.name else next(iter(one.versions.values())),
                accepted=(accepted[0].get(name, []), accepted[1].get(name, [])),
                done=done[drained[0]] if drained else [],
                how=drained[0].removeprefix(f"{name}: ") if drained else "",
                one_at_a_time=done[alone[0]] if alone else [],
                idle_ms=idle.get(name, []),
            )
            found.append(summary)
        return sorted(found, key=lambda one: (one.library.name != OURS.name, -median(one.accepted[0])))


def without_paths(place: Place) -> Place:
    """Return the place with only the last part of each path in its command."""
    words = (Path(word).name if "/" in word else word for word in shlex.split(place.command))
    return place.model_copy(update={"command": shlex.join(words)})


def median(values: Sequence[float]) -> float:
    """Return the median; 0 of nothing."""
    return statistics.median(values) if values else 0.0


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return float(np.percentile(values, 99))


def draw(comparison: Comparison, path: Path) -> Figure:
    """Write a PNG of three panels, and return the figure: two dots for each library, a line from lowest to highest."""
    summaries = comparison.summaries()
    title = "Job queues, each on a store that syncs to disk before every reply; dots: medians, lines: lowest to highest"
    with drawing(1, 3, height=2 + 0.8 * len(summaries), width=22, title=title) as (figure, panels):
        accepted = [one.accepted for one in summaries]
        _panel(panels[0], summaries, accepted, "jobs accepted a second by one API process", ACCEPTED_AT)
        drained = [(one.done, one.one_at_a_time) for one in summaries]
        _panel(panels[1], summaries, drained, "empty jobs done a second by one worker", ("fastest", "one at a time"))
        idle = [(one.idle_ms, [p99(one.idle_ms)] if one.idle_ms else []) for one in summaries]
        _panel(panels[2], summaries, idle, "ms from POST to done on an idle stack", ("p50", "p99"))
    figure.savefig(path, dpi=90)
    return cast(Figure, figure)


def _panel(
    axes: Axes,
    summaries: list[Summary],
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]],
    what: str,
    names: tuple[str, str],
) -> None:
    """Draw two dots for each library, with their medians as text; a bar on a logarithmic axis would have no length."""
    for marker, name, number in zip("os", names, (0, 1), strict=True):
        for place, (summary, pair) in enumerate(zip(summaries, pairs, strict=True)):
            values, row = pair[number], place + (number - 0.5) * 0.4
            colour = BLUE if summary.library.name == OURS.name else GREY
            if values:
                middle = median(values)
                axes.plot([min(values), max(values)], [row, row], color=colour, linewidth=2)
                axes.plot([middle], [row], marker, color=colour, fillstyle="none" if number else "full", markersize=9)
                text = (max(values), row), (9, 0)
                axes.annotate(about(middle), *text, textcoords="offset points", va="center")
        axes.plot([], [], marker, color=GREY, fillstyle="none" if number else "full", markersize=9, label=name)
    every = [value for pair in pairs for values in pair for value in values] or [1.0]
    axes.set_xscale("log")
    axes.set_xlim(10 ** math.floor(math.log10(min(every))), 6 * max(every))
    axes.set_yticks(range(len(summaries)), [one.library.name for one in summaries])
    axes.set_ylim(len(summaries) - 0.4, -0.6)
    axes.set(xlabel=what)
