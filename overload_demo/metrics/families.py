"""Families of numbers as Prometheus knows them, counted in the rows of :mod:`overload_demo.metrics.rows`."""

import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from overload_demo.metrics.rows import ALIVE, FIRST, LAYOUT, Rows


class Number:
    """A counter or gauge of this process. One thread only may change it."""

    __slots__ = ("_at", "_row")

    def __init__(self, row: "memoryview[float]", at: int) -> None:
        self._row, self._at = row, at

    def add(self, amount: float = 1.0) -> None:
        """Count; a counter never down."""
        self._row[self._at] += amount

    def set(self, value: float) -> None:
        """Say how it stands: for gauges."""
        self._row[self._at] = value


class Histogram:
    """How often which values came, in this process. One thread only may observe."""

    __slots__ = ("_at", "_bounds", "_row", "_sum_at")

    def __init__(self, row: "memoryview[float]", at: int, bounds: Sequence[float]) -> None:
        self._row, self._at, self._bounds = row, at, bounds
        self._sum_at = at + len(bounds) + 1  # after the buckets, the last of which has no bound

    def observe(self, value: float) -> None:
        """Count one value."""
        self._row[self._at + bisect_left(self._bounds, value)] += 1.0
        self._row[self._sum_at] += value

    def observe_all(self, values: list[float]) -> None:
        """Count many values, for a fraction of what they cost one by one; sorts the list."""
        values.sort()
        counted = 0
        for place, bound in enumerate((*self._bounds, inf), self._at):
            up_to = bisect_right(values, bound, counted)
            self._row[place] += up_to - counted
            counted = up_to
        self._row[self._sum_at] += sum(values)


@dataclass(frozen=True)
class _Family:
    kind: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]
    name: str
    help: str
    label: str
    values: tuple[str, ...]
    bounds: tuple[float, ...]
    at: int

    @property
    def size(self) -> int:
        """Numbers of one series."""
        return len(self.bounds) + 2 if self.bounds else 1

    def told(self, rows: Sequence["memoryview[float]"]) -> Metric:
        """The family as the library knows it, added up: gauges over the living, all else over the dead as well."""
        if self.kind is GaugeMetricFamily:
            rows = [row for row in rows if row[ALIVE]]
        family = self.kind(self.name, self.help, labels=[self.label] if self.label else [])
        for index, value in enumerate(self.values):
            start = self.at + index * self.size
            sums = [sum(row[at] for row in rows) for at in range(start, start + self.size)]
            labels = [value] if self.label else []
            if isinstance(family, HistogramMetricFamily):
                names = [*(repr(float(bound)) for bound in self.bounds), "+Inf"]
                buckets = list(zip(names, accumulate(sums[:-1]), strict=True))
                family.add_metric(labels, buckets, sums[-1])
            else:
                family.add_metric(labels, sums[0])
        return family


class Sheet:
    """All families of a process, which writes one row of the shared memory ``fd``; without one, a row of its own.

    Declare every family, always in the same order, then :meth:`begin`. A prometheus-client collector.
    """

    def __init__(self, fd: int = -1, row: int = 0) -> None:
        self._rows = Rows(fd)
        self._row = self._rows[row]
        self._families: list[_Family] = []
        self._next = FIRST

    def counter(self, name: str, help: str) -> Number:
        """What only grows; summed over all processes, dead ones included."""
        return self.counters(name, help, "", [""])[""]

    def counters(self, name: str, help: str, label: str, values: Sequence[str]) -> dict[str, Number]:
        """A counter for each value of a label."""
        places = self._places(CounterMetricFamily, name, help, label, values)
        return {value: Number(self._row, at) for value, at in places}

    def gauge(self, name: str, help: str) -> Number:
        """How something stands; summed over the living processes."""
        [(_, at)] = self._places(GaugeMetricFamily, name, help, "", [""])
        return Number(self._row, at)

    def histogram(self, name: str, help: str, bounds: Sequence[float]) -> Histogram:
        """How values spread; ``bounds`` are the upper ends of the buckets, without the last, infinite one."""
        return self.histograms(name, help, "", [""], bounds)[""]

    def histograms(
        self, name: str, help: str, label: str, values: Sequence[str], bounds: Sequence[float]
    ) -> dict[str, Histogram]:
        """A histogram for each value of a label."""
        places = self._places(HistogramMetricFamily, name, help, label, values, bounds)
        return {value: Histogram(self._row, at, bounds) for value, at in places}

    def begin(self) -> None:
        """Take the row over from whoever wrote it before: count on, but forget how things stood with it."""
        if self._row[LAYOUT] != self._layout:
            for at in range(len(self._row)):
                self._row[at] = 0.0
        for family in self._families:
            if family.kind is GaugeMetricFamily:
                self._row[family.at] = 0.0
        self._row[LAYOUT], self._row[ALIVE] = self._layout, 1.0

    def collect(self) -> Iterator[Metric]:
        """The library's hook: every family, over all processes."""
        rows = list(self._rows.of(self._layout))
        return (family.told(rows) for family in self._families)

    @property
    def _layout(self) -> float:
        """A number that changes whenever a number in a row changes its meaning."""
        return float(zlib.crc32(repr(self._families).encode()))

    def _places(
        self,
        kind: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily],
        name: str,
        help: str,
        label: str,
        values: Sequence[str],
        bounds: Sequence[float] = (),
    ) -> Iterator[tuple[str, int]]:
        family = _Family(kind, name, help, label, tuple(values), tuple(bounds), self._next)
        self._families.append(family)
        self._next += family.size * len(values)
        assert self._next <= len(self._row), "a row has no room for another family"
        return ((value, family.at + index * family.size) for index, value in enumerate(values))
