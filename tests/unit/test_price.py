"""The cost of a run on Upstash is estimated from a recorded one, and never too low."""

import pytest

from experiments.bench.record import RESULTS
from overload_demo.lab import report
from overload_demo.lab.result import SpikeResult


def test_the_estimate_is_the_recorded_cost_rounded_up() -> None:
    recorded = SpikeResult.read(RESULTS / "spike_far.json")
    estimated = report.estimate(recorded.accepted, recorded.conditions.processing_delay_s)
    assert recorded.upstash_commands
    assert recorded.rest_calls_per_job
    recorded_cost = (recorded.rest_calls_per_job * recorded.accepted, *recorded.upstash_commands)
    expected = estimated.calls, estimated.least_commands, estimated.most_commands
    for most, counted in zip(expected, recorded_cost, strict=True):
        assert counted <= most <= 2 * counted


def test_slow_jobs_are_leased_singly_and_estimated_higher() -> None:
    quick, slow = report.estimate(1_000, 0.0), report.estimate(1_000, 2.0)

    assert slow.calls > 1_000 > quick.calls
    assert slow.most_commands > slow.least_commands > quick.least_commands


def test_the_estimate_states_share_and_price_of_both_ways_of_counting() -> None:
    estimated = report.Estimate(calls=1_234, least_commands=50_000, most_commands=1_000_000).text

    for part in ("1,234 calls", "50,000 commands", "10.0 % of the 500,000", "$0.10", "200.0 % of the 500,000", "$2.00"):
        assert part in estimated


@pytest.mark.parametrize(("commands", "text"), [(100, "$0.000"), (5_000, "$0.010"), (123_456, "$0.25")])
def test_small_prices_keep_their_digits(commands: int, text: str) -> None:
    assert report.dollars(commands) == text
