"""Schedules: when each request is meant to be sent."""

from dataclasses import asdict

import numpy as np
import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.load import LoadPlan, Shape, intended_times

URL = "http://127.0.0.1:8000"


@pytest.mark.parametrize("shape", list(Shape))
def test_every_shape_is_sorted_and_complete(shape: Shape) -> None:
    times_s = intended_times(shape, 1000, 200.0)

    assert times_s.shape == (1000,)
    assert times_s.dtype == np.float64
    assert times_s[0] >= 0
    assert np.all(np.diff(times_s) >= 0)


@pytest.mark.parametrize("shape", list(Shape))
def test_a_single_request_has_a_schedule(shape: Shape) -> None:
    assert intended_times(shape, 1, 100.0).shape == (1,)


def test_constant_load_has_equal_gaps() -> None:
    assert np.allclose(intended_times("constant", 5, 10.0), [0.0, 0.1, 0.2, 0.3, 0.4])


def test_a_ramp_ends_at_the_full_rate() -> None:
    times_s = intended_times("ramp", 10_000, 100.0)

    assert times_s[-1] == pytest.approx(200.0, rel=1e-3)
    assert 1 / np.diff(times_s)[-100:].mean() == pytest.approx(100.0, rel=0.02)
    assert 1 / np.diff(times_s)[times_s.searchsorted(100.0)] == pytest.approx(50.0, rel=0.02)


def test_a_spike_is_a_calm_fiftieth_and_then_a_burst() -> None:
    gaps_s = np.diff(intended_times("spike", 1000, 100.0))

    assert np.allclose(gaps_s[:20], 0.05)
    assert np.allclose(gaps_s[20:], 0.01)


def test_poisson_gaps_are_exponential_and_repeatable() -> None:
    times_s = intended_times("poisson", 50_000, 100.0, seed=7)
    gaps_s = np.diff(times_s)

    assert gaps_s.mean() == pytest.approx(0.01, rel=0.03)
    assert gaps_s.std() == pytest.approx(0.01, rel=0.03)
    assert np.array_equal(times_s, intended_times("poisson", 50_000, 100.0, seed=7))
    assert not np.array_equal(times_s, intended_times("poisson", 50_000, 100.0, seed=8))


def test_at_once_means_all_at_zero() -> None:
    assert not intended_times("at-once", 100, 1.0).any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"requests": 0}, "requests: .*greater than or equal to 1, not 0"),
        ({"requests": -5}, "requests: .*greater than or equal to 1, not -5"),
        ({"rate_per_s": 0.0}, "rate: .*greater than 0, not 0.0"),
        ({"rate_per_s": float("nan")}, "rate: .*finite number, not nan"),
        ({"rate_per_s": float("inf")}, "rate: .*finite number, not inf"),
        ({"shape": "sawtooth"}, "shape: .*'constant', 'ramp', .*, not 'sawtooth'"),
        ({"processes": 0}, "processes: .*greater than or equal to 1, not 0"),
        ({"timeout_s": 0.0}, "timeout: .*greater than or equal to 0.001, not 0.0"),
        ({"expires_in_s": 0.0}, "expires in: .*greater than or equal to 0.001, not 0.0"),
        ({"expires_in_s": float("nan")}, "expires in: .*, not nan"),
        ({"url": "127.0.0.1:8000"}, "URL must look like"),
        ({"url": "http://127.0.0.1:99999"}, "URL must look like"),
        ({"url": "http://example.com"}, "not this machine"),
        ({"url": "http://0.0.0.0:80"}, "not this machine"),
    ],
)
def test_a_mistake_in_a_plan_is_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        LoadPlan(**({"url": URL, "requests": 10} | wrong))  # type: ignore[arg-type]

    assert "\n" not in str(caught.value)


def test_a_remote_target_needs_permission() -> None:
    assert LoadPlan("http://example.com", requests=1, allow_remote=True).target == "http://example.com/jobs"


def test_localhost_is_never_looked_up() -> None:
    assert LoadPlan("http://localhost:8000/", requests=1).target == "http://127.0.0.1:8000/jobs"


def test_the_longest_duration_cuts_the_schedule() -> None:
    plan = LoadPlan(URL, requests=1000, rate_per_s=100.0, shape=Shape.CONSTANT, max_duration_s=0.995)

    assert plan.schedule().size == 100


def test_a_plan_survives_its_own_json() -> None:
    plan = LoadPlan(URL, requests=3, shape=Shape.POISSON, connections=2)

    assert LoadPlan(**asdict(plan)) == plan
