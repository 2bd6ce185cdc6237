"""What a run on Upstash will cost is told from a recorded one, and never too little."""

import pytest

from experiments.bench.record import RESULTS
from overload_demo.lab import report
from overload_demo.lab.result import SpikeResult


def test_what_is_told_beforehand_is_what_the_recorded_run_asked_rounded_up() -> None:
    recorded = SpikeResult.read(RESULTS / "spike_far.json")
    told = report.estimate(recorded.accepted, recorded.conditions.processing_delay_s)
    assert recorded.upstash_commands
    assert recorded.rest_calls_per_job
    asked = (recorded.rest_calls_per_job * recorded.accepted, *recorded.upstash_commands)
    for said, counted in zip((told.calls, told.least_commands, told.most_commands), asked, strict=True):
        assert counted <= said <= 2 * counted


def test_slow_jobs_are_leased_one_by_one_and_told_to_cost_more() -> None:
    quick, slow = report.estimate(1_000, 0.0), report.estimate(1_000, 2.0)

    assert slow.calls > 1_000 > quick.calls
    assert slow.most_commands > slow.least_commands > quick.least_commands


def test_the_line_holds_share_and_price_of_both_ways_of_counting() -> None:
    told = report.Estimate(calls=1_234, least_commands=50_000, most_commands=1_000_000).text

    for part in ("1,234 calls", "50,000 commands", "10.0% of the 500,000", "$0.10", "200.0% of the 500,000", "$2.00"):
        assert part in told


@pytest.mark.parametrize(("commands", "said"), [(100, "$0.000"), (5_000, "$0.010"), (123_456, "$0.25")])
def test_small_prices_keep_their_digits(commands: int, said: str) -> None:
    assert report.dollars(commands) == said
