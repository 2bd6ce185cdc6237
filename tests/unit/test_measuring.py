"""What is concluded from measurements: the corrected log, the tests of a difference, and their figures."""

import numpy as np
import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.lab import plots, theory
from overload_demo.lab.measuring import Freeze, MeasuredLoad, Pairs, corrected, median_interval, sign_test
from overload_demo.load import Kind, LoadPlan, LoadResult, Shape, intended_times
from overload_demo.load.machine import Environment
from tests.support.steps import step


@pytest.mark.parametrize(
    ("times_s", "interval_s", "right"),
    [
        ([0.3], 1.0, [0.3]),
        ([1.5], 1.0, [1.5]),  # the request one interval later would have taken 0.5 s, less than the interval
        ([2.0], 1.0, [2.0, 1.0]),
        ([3.7, 0.1], 1.0, [3.7, 0.1, 2.7, 1.7]),
        ([], 1.0, []),
    ],
)
def test_a_corrected_log_holds_what_a_waiting_client_left_out(
    times_s: list[float], interval_s: float, right: list[float]
) -> None:
    assert corrected(times_s, interval_s) == pytest.approx(np.array(right))


def test_a_corrected_closed_loop_is_close_to_the_open_loop_of_the_same_freeze() -> None:
    interval_s, freeze_s, quick_s = 0.05, 2.0, 0.004
    waits_for_the_end = freeze_s - np.arange(0, freeze_s, interval_s)
    open_loop = np.concatenate([np.full(160, quick_s), waits_for_the_end])
    closed_loop = np.append(np.full(160, quick_s), freeze_s)

    assert np.percentile(closed_loop, 99) < 0.02 < np.percentile(open_loop, 99)
    assert np.percentile(corrected(closed_loop, interval_s), 99) == pytest.approx(
        np.percentile(open_loop, 99), rel=0.03
    )


@pytest.mark.parametrize(
    ("wins", "pairs", "chance"), [(5, 5, 1 / 16), (6, 6, 1 / 32), (0, 6, 1 / 32), (3, 6, 1.0), (9, 10, 22 / 1024)]
)
def test_the_sign_test_is_the_chance_of_coins(wins: int, pairs: int, chance: float) -> None:
    assert sign_test(wins, pairs) == pytest.approx(chance)


def test_the_interval_of_a_median_holds_it_and_shrinks_with_more_values() -> None:
    values = np.random.default_rng(1).normal(1.0, 0.1, 400)

    few, many = median_interval(values[:10]), median_interval(values)

    assert few[0] < np.median(values[:10]) < few[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert median_interval(values) == many, "a figure that is drawn again stays the same"


def test_the_waits_are_those_of_lindleys_recursion() -> None:
    arrivals_s, job_s = intended_times(Shape.POISSON, 500, 180.0, 3), 0.005
    wait_s, waits = 0.0, [0.0]
    for gap_s in np.diff(arrivals_s):
        wait_s = max(0.0, wait_s + job_s - gap_s)
        waits.append(wait_s)

    assert theory.waits_s(arrivals_s, job_s) == pytest.approx(np.array(waits))


def test_a_page_of_many_requests_meets_the_tail() -> None:
    assert theory.seen_by(0.01, 1) == pytest.approx(0.01)
    assert theory.seen_by(0.01, 100) == pytest.approx(0.634, abs=0.001)


def test_a_freeze_of_an_unknown_part_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="printer"):
        Freeze("printer", 1.0, 1.0)


def test_the_spectrum_says_median_mean_and_p99_of_each_set() -> None:
    times_s = {"closed loop": np.append(np.full(999, 0.004), 2.0), "open loop": np.linspace(0.004, 2.0, 1000)}

    figure = plots.spectrum(times_s, p99_s={"closed loop": 1.5})

    assert "closed loop: median 4 ms, mean 6 ms, p99 4 ms; 99.9 % took less than the mean." in figure.alt
    assert "p99 2.0 s" in figure.alt
    assert "Predicted p99, closed loop: 1.5 s." in figure.alt
    with pytest.raises(ConfigurationError, match="no request was accepted"):
        plots.spectrum({"open loop": np.array([])})


def test_the_figure_of_pairs_counts_wins_and_chance_and_names_doubts() -> None:
    measured = Pairs(np.full(6, 100.0), np.linspace(102, 107, 6), ("a load process used 95 % of a core",))

    figure = plots.pairs(measured)

    assert "6 pairs. B was faster in 6, by +4.5 %" in figure.alt
    assert "probability 0.031" in figure.alt
    assert "Generator-bound turns: a load process used 95 % of a core." in figure.caption


def test_the_knee_is_drawn_only_where_every_request_was_answered() -> None:
    answered = step(planned=600, answered=600, offered_per_s=100.0, seconds=6.0, answered_per_s=[95.0] * 10)

    figure = plots.knee([answered], limit_s=0.04)

    assert "100/s: 95/s answered, median 500 ms, p99 892 ms." in figure.alt
    assert "The promise is 0.04 s." in figure.alt
    for unfit in ([], [step()]):
        with pytest.raises(ConfigurationError, match="longer time-out"):
            plots.knee(unfit)


def test_a_run_that_accepted_nothing_has_a_figure_without_dots() -> None:
    nothing = np.zeros(2)
    load = LoadResult(
        plan=LoadPlan("http://127.0.0.1:1", requests=2),
        intended_s=nothing,
        sent_s=nothing,
        done_s=nothing,
        status=np.zeros(2, np.int16),
        kind=np.full(2, Kind.REFUSED, np.uint8),
        job_ids=np.array([b"", b""]),
        processes=[],
        environment=Environment.here(),
        started_at="2026-01-01T00:00:00.000Z",
        started_mono_s=0.0,
    )

    assert "open loop: 0 requests" in plots.samples({"open loop": MeasuredLoad(load, None)}).alt
