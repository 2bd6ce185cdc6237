"""Metrics in shared memory: summed over processes, kept after their end, and separate after an update."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter, Gauge

from overload_demo.errors import (
    StoreAuthError,
    StoreError,
    StoreFullError,
    StoreQuotaError,
    StoreRefusedError,
    StoreUnavailableError,
)
from overload_demo.metric_set import Histogram, MetricSet, mark_dead, shared_memory


@pytest.fixture
def memory() -> Iterator[int]:
    with shared_memory(3) as file:
        yield file.fileno()


class Process:
    """The metrics that a process declares and counts."""

    def __init__(self, fd: int, row: int, newer: bool = False) -> None:
        with MetricSet(fd, row) as self.sheet:
            if newer:
                Counter("new_total", "What the next version counts first.", registry=self.sheet)
            self.count = Counter("count_total", "A counter.", registry=self.sheet)
            self.level = Gauge("level", "A gauge.", registry=self.sheet)
            self.times = Histogram("times_seconds", "A histogram.", registry=self.sheet, buckets=(0.1, 1.0))

    def samples(self) -> dict[str, float]:
        """The samples of a scrape of this process."""
        samples = [sample for family in self.sheet.collect() for sample in family.samples]
        return {sample.name + sample.labels.get("le", ""): sample.value for sample in samples}


def test_a_scrape_of_any_process_sums_all_rows(memory: int) -> None:
    first, second = Process(memory, 0), Process(memory, 2)
    for one, value in ((first, 0.05), (second, 0.1), (second, 5.0)):
        one.count.inc()
        one.level.set(value)
        one.times.observe(value)

    assert first.samples() == second.samples()
    assert first.samples() == {
        "count_total": 3,
        "level": 5.05,
        "times_seconds_bucket0.1": 2,  # a bound belongs to its bucket
        "times_seconds_bucket1.0": 2,
        "times_seconds_bucket+Inf": 3,
        "times_seconds_count": 3,
        "times_seconds_sum": pytest.approx(5.15),
    }


def test_a_successor_continues_counters_and_resets_gauges(memory: int) -> None:
    dead = Process(memory, 1)
    dead.count.inc(4)
    dead.level.set(7)

    successor = Process(memory, 1)
    successor.count.inc()

    assert (successor.samples()["count_total"], successor.samples()["level"]) == (5, 0)


def test_a_dead_process_keeps_its_counters_and_loses_its_gauges(memory: int) -> None:
    dead, alive = Process(memory, 0), Process(memory, 1)
    for one in (dead, alive):
        one.count.inc(4)
        one.level.set(7)

    mark_dead(memory, 0)

    assert (alive.samples()["count_total"], alive.samples()["level"]) == (8, 7)


def test_rows_of_another_layout_are_neither_summed_nor_continued(memory: int) -> None:
    old, taken_over = Process(memory, 0), Process(memory, 1)
    for one in (old, taken_over):
        one.count.inc(4)

    new = Process(memory, 1, newer=True)

    assert new.samples()["new_total"] == new.samples()["count_total"] == 0
    assert old.samples()["count_total"] == 4


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StoreUnavailableError, "unavailable"),
        (StoreAuthError, "auth"),
        (StoreFullError, "full"),
        (StoreQuotaError, "quota"),
        (StoreRefusedError, "refused"),
    ],
)
def test_a_store_error_is_counted_by_its_kind(error: type[StoreError], kind: str) -> None:
    with MetricSet() as sheet:
        count = sheet.store_errors()

    count(error("it did not"))

    [family] = sheet.collect()
    assert [sample.labels["kind"] for sample in family.samples if sample.value] == [kind]


def test_without_shared_memory_each_process_counts_alone() -> None:
    one, other = Process(-1, 0), Process(-1, 0)
    one.count.inc()

    assert (one.samples()["count_total"], other.samples()["count_total"]) == (1, 0)


@given(st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0, 5.0]) | st.floats(0.0, 1e6)))
def test_observe_all_equals_single_observations(values: list[float]) -> None:
    singly, together = Process(-1, 0), Process(-1, 0)
    for value in values:
        singly.times.observe(value)
    together.times.observe_all(values)

    assert together.samples() == {name: pytest.approx(value) for name, value in singly.samples().items()}
