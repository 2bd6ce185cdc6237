"""An act is sized by time: by theory each ends while a class still looks on, on any machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overload_demo.lab.dashboard.sizes import AT_ONCE_AT_MOST, EMPTY_WITHIN_S, FIRES_S, Sizes

RATES = st.floats(min_value=20, max_value=1e5)


@given(accepts_per_s=st.floats(min_value=200, max_value=1e5), drains_per_s=RATES)
def test_a_spike_is_over_within_its_time_whatever_the_machine_takes(accepts_per_s: float, drains_per_s: float) -> None:
    sizes = Sizes.of(accepts_per_s, drains_per_s)

    assert sizes.requests <= max(100, drains_per_s * EMPTY_WITHIN_S)
    assert sizes.requests / drains_per_s <= EMPTY_WITHIN_S
    assert 0 < sizes.at_once <= min(sizes.requests, AT_ONCE_AT_MOST)
    assert 10 <= sizes.rate_per_s <= max(10, accepts_per_s)


def test_where_more_is_accepted_than_drained_a_queue_grows_and_is_emptied_in_time() -> None:
    sizes = Sizes.of(accepts_per_s=6000.0, drains_per_s=800.0)

    assert (sizes.requests, sizes.rate_per_s) == (32_400, 2400.0)
    assert sizes.fires_s == pytest.approx(13.5)
    assert sizes.peak == pytest.approx((2400 - 800) * 13.5)
    assert sizes.empty_s == pytest.approx(32_400 / 800) and sizes.empty_s < EMPTY_WITHIN_S


def test_a_quick_machine_fires_for_as_long_as_a_class_looks_on() -> None:
    assert Sizes.of(accepts_per_s=1e5, drains_per_s=800.0).fires_s == pytest.approx(FIRES_S, rel=0.01)


def test_a_worker_as_quick_as_the_spike_leaves_no_queue() -> None:
    sizes = Sizes.of(accepts_per_s=100.0, drains_per_s=5000.0)

    assert sizes.peak == 0.0
    assert sizes.empty_s == sizes.fires_s
