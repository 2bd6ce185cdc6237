"""An act is sized by time: by theory each ends within 45 s on any machine."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overload_demo.live.stage import (
    AT_ONCE_AT_MOST,
    DELAY_S,
    EMPTY_WITHIN_S,
    FILE,
    FIRES_S,
    Rehearsal,
    Sizes,
    rehearsed,
)
from overload_demo.load.machine import Environment


@given(accepts_per_s=st.floats(min_value=200, max_value=1e5), drains_per_s=st.floats(min_value=20, max_value=1e5))
def test_on_any_machine_a_queue_grows_and_is_empty_in_time(accepts_per_s: float, drains_per_s: float) -> None:
    sizes = Sizes.of(accepts_per_s, drains_per_s)

    assert sizes.empty_s <= EMPTY_WITHIN_S
    assert sizes.peak >= sizes.requests / 2, "arrivals are several times the drain rate"
    assert 0 < sizes.at_once <= min(sizes.requests, AT_ONCE_AT_MOST)
    assert sizes.rate_per_s <= max(10, accepts_per_s / 2), "the browser needs a share of the machine"


def test_where_several_times_more_is_accepted_than_drained_jobs_stay_as_short_as_measured() -> None:
    sizes = Sizes.of(accepts_per_s=6000.0, drains_per_s=800.0)

    assert sizes == Sizes(requests=32_400, rate_per_s=2400.0, at_once=20_000, delay_s=DELAY_S, drains_per_s=800.0)
    assert sizes.fires_s == pytest.approx(13.5)
    assert sizes.peak == pytest.approx((2400 - 800) * 13.5)
    assert sizes.empty_s == pytest.approx(32_400 / 800)


def test_where_it_drains_as_fast_as_it_accepts_jobs_get_longer() -> None:
    sizes = Sizes.of(accepts_per_s=3000.0, drains_per_s=3000.0)

    assert (sizes.rate_per_s, sizes.drains_per_s) == (1200.0, 400.0)
    assert sizes.delay_s == pytest.approx(DELAY_S + 1 / 400 - 1 / 3000, abs=1e-5)


def test_on_a_quick_machine_a_spike_lasts_its_minimum_time() -> None:
    assert Sizes.of(accepts_per_s=1e5, drains_per_s=800.0).fires_s == pytest.approx(FIRES_S, rel=0.01)


def test_a_rehearsal_is_of_this_machine_and_of_as_many_servers(tmp_path: Path) -> None:
    sizes = Sizes.of(accepts_per_s=3000.0, drains_per_s=3000.0)
    record = Rehearsal(environment=Environment.here(), sizes=sizes, nodes=6)
    (tmp_path / FILE).write_text(record.model_dump_json())

    assert (rehearsed(tmp_path, nodes=6), rehearsed(tmp_path)) == (sizes, None)
