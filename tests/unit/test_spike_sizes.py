"""The spike is sized for the machine, and a comparison that shows nothing is reported first."""

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from experiments.bench.record import RESULTS
from overload_demo.lab import plots, report
from overload_demo.lab.result import BaselineRun, SpikeResult
from overload_demo.lab.spike_plan import (
    BASELINE_SPIKE_S,
    BASELINE_TIMEOUT_S,
    MIN_DELAY_S,
    baseline_fires_s,
    sized_delay_s,
)
from overload_demo.live.feed import Feed, LiveSample
from overload_demo.live.sources import spike_text
from overload_demo.load import LoadPlan, Shape

URL = "http://127.0.0.1:1"
# Measured with `overload-demo spike --rate 1430`: seconds without any response, then 5,544 in one.
BURST = [286.0, 286.0, 633.0, 374.0, 239.0, 103.0, 173.0, 134.0, 225.0, 64.0, 94.0, 57.0, 401.0, 428.0, 73.0]
BURST += [0.0, 0.0, 0.0, 5544.0]


@pytest.fixture(scope="module")
def recorded() -> SpikeResult:
    return SpikeResult.read(RESULTS / "spike.json")


def with_naive(result: SpikeResult, accepted: int, **other: Any) -> SpikeResult:
    naive = result.baseline
    assert naive is not None
    summary = naive.summary.model_copy(update={"planned": 9_160, "accepted": accepted} | other)
    return result.model_copy(update={"baseline": naive.model_copy(update={"summary": summary})})


def first_line(result: SpikeResult) -> str:
    text = io.StringIO()
    Console(file=text, width=300).print(report.table(result))
    return text.getvalue().splitlines()[0]


@pytest.mark.parametrize("rate_per_s", [20.0, 540.0, 900.0, 1430.0, 4600.0, 20_000.0])
def test_the_work_of_a_job_makes_the_spike_twice_as_fast_as_the_slot_allows(rate_per_s: float) -> None:
    delay_s = sized_delay_s(rate_per_s)

    assert rate_per_s * delay_s >= 2
    assert delay_s >= MIN_DELAY_S
    assert delay_s <= max(MIN_DELAY_S, 2 / rate_per_s + 0.0001)


@pytest.mark.parametrize("rate_per_s", [300.0, 900.0, 1430.0, 4600.0])
def test_the_naive_api_gets_the_spike_for_three_timeouts_of_its_clients(rate_per_s: float) -> None:
    plan = LoadPlan(URL, 100_000, rate_per_s)
    intended_s = plan.schedule()
    calm_s = float(intended_s[2_000])

    fires_s = baseline_fires_s(plan)

    assert fires_s >= min(calm_s + 3 * BASELINE_TIMEOUT_S, float(intended_s[-1]))
    assert fires_s <= calm_s + BASELINE_SPIKE_S + 1


@pytest.mark.parametrize("shape", list(Shape))
def test_a_short_load_is_sent_to_the_naive_api_to_its_end(shape: Shape) -> None:
    plan = LoadPlan(URL, 1_000, 100.0, shape=shape)

    window = LoadPlan(URL, 1_000, 100.0, shape=shape, max_duration_s=baseline_fires_s(plan))

    assert np.array_equal(window.schedule(), plan.schedule())


def test_the_recorded_spike_has_no_caveat(recorded: SpikeResult) -> None:
    assert recorded.caveat == ""
    assert first_line(recorded).startswith("ABSORBED: 100,000 of 100,000 accepted")


def test_the_first_line_states_a_naive_api_that_answered_all(recorded: SpikeResult) -> None:
    result = with_naive(recorded, accepted=9_160)

    assert "SHOWS NOTHING: the naive API kept up: it answered 9,160 of 9,160 clients within 10 s" in first_line(result)
    assert spike_text(result).startswith("The numbers are not valid: the naive API kept up")
    assert plots.spike(result).caption.startswith("The comparison shows nothing: the naive API kept up")


def test_the_first_line_states_a_queue_that_stayed_short(recorded: SpikeResult) -> None:
    result = recorded.model_copy(update={"peak_queue_depth": 80})

    assert "SHOWS NOTHING: the worker kept up: at most 80 of 100,000 jobs waited" in first_line(result)


def test_a_short_queue_with_a_bound_or_with_errors_is_no_caveat(recorded: SpikeResult) -> None:
    bounded = recorded.conditions.model_copy(update={"max_queue_depth": 80})

    assert recorded.model_copy(update={"peak_queue_depth": 80, "conditions": bounded}).caveat == ""
    assert recorded.model_copy(update={"peak_queue_depth": 80, "verdict": "not absorbed"}).caveat == ""


def burst(recorded: SpikeResult) -> BaselineRun:
    naive = recorded.baseline
    assert naive is not None
    series = naive.series.model_copy(update={"accepted_per_s": BURST})
    return naive.model_copy(update={"series": series, "slot_capacity_per_s": 1570.4, "slot_under_load_per_s": 1147.3})


def test_answers_that_leave_in_a_burst_never_exceed_what_the_slot_allows(recorded: SpikeResult) -> None:
    run = burst(recorded)

    rates = run.answered_per_s()

    assert max(rates) <= run.capacity_per_s < max(BURST)
    assert sum(rates) == pytest.approx(sum(BURST))
    assert rates[:14] == BURST[:14]


def test_the_slots_capacity_is_the_better_of_its_two_measurements(recorded: SpikeResult) -> None:
    run = burst(recorded).model_copy(update={"slot_capacity_per_s": 627.0, "slot_under_load_per_s": 1_800.0})

    assert run.capacity_per_s == 1_800.0


def test_the_live_view_counts_a_burst_over_the_time_it_was_worked_on(recorded: SpikeResult) -> None:
    feed, total = Feed(), 0.0
    for second, answered in enumerate(BURST, 1):
        total += answered
        count = round(total)
        feed.add(LiveSample("naive", float(second), count, 0, queue_depth=0, oldest_age_s=0.0, settled=count))

    assert max(sample.drain_rate_per_s for sample in feed.samples("naive")) <= 1570.4
