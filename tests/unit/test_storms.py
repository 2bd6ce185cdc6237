"""Retry storms: the simulation against the formulas, what ends a storm, and what the figures say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.lab import plots, storm_simulation, theory
from overload_demo.lab.plots.accessible_figure import AccessibleFigure
from overload_demo.lab.storm import Cure, FunctionBucket, StormLog, StormPlan, StormRun
from overload_demo.lab.storm_simulation import simulate
from overload_demo.load import TokenBucket

PLAN = StormPlan(per_s=40)  # a load of 0.4 on a worker of 100 jobs a second
NO_CURE = Cure("no cure")


def test_the_simulation_is_short_enough_to_be_read_in_class() -> None:
    assert len(Path(storm_simulation.__file__).read_text().splitlines()) <= 60


def test_a_storm_outlasts_its_trigger_while_the_worker_is_busy() -> None:
    run = simulate(replace(PLAN, after_s=60), NO_CURE)

    assert (run.outcome, run.back_s, run.goodput_at_end) == ("storm", None, 0.0)
    assert run.done_per_s == pytest.approx(100, rel=0.01), "it does abandoned jobs at its full rate"
    assert run.rate_at_end(run.log.attempts_s) == pytest.approx(160, rel=0.01), "each request is sent four times"


@pytest.mark.parametrize("retries", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("share", [0.7, 1.3])
def test_the_edge_is_where_load_times_attempts_is_the_capacity(retries: int, share: float) -> None:
    load = share * theory.storm_load(retries)

    run = simulate(replace(PLAN, per_s=load / PLAN.work_s, after_s=60), Cure.of("", attempts=1 + retries))

    assert run.outcome == ("recovered" if share < 1 else "storm")


def test_below_the_edge_the_queue_drains_as_fast_as_the_formula_says() -> None:
    plan = StormPlan(per_s=20, after_s=24)
    run = simulate(plan, NO_CURE)
    too_many = run.log.waiting[0] - plan.timeout_s / plan.work_s

    expected_s = plan.counts_at_s[0] - plan.thaws_s + theory.storm_seconds(too_many, 20, 100, 3)

    assert run.back_s == pytest.approx(expected_s, abs=1)
    assert simulate(replace(plan, after_s=5), NO_CURE).outcome == "drains"
    assert theory.storm_seconds(too_many, 30, 100, 3) == float("inf")


@pytest.mark.parametrize(
    "clients",
    [
        {"backoff": "fixed", "base_s": 0.5},
        {"backoff": "exponential", "base_s": 0.5},
        {"backoff": "exponential", "base_s": 0.5, "jitter": "full"},
    ],
    ids=["fixed", "back-off", "jitter"],
)
def test_waits_alone_do_not_end_a_storm(clients: dict[str, Any]) -> None:
    run = simulate(replace(PLAN, after_s=60), Cure.of("", **clients))

    assert (run.outcome, run.goodput_at_end) == ("storm", 0.0)


@pytest.mark.parametrize(
    "cure",
    [Cure.of("budget", budget=0.1), Cure.of("bound", room=30), Cure.of("deadline", expires_in_s=0.55)],
    ids=lambda cure: str(cure.name),
)
def test_less_work_ends_a_storm(cure: Cure) -> None:
    run = simulate(PLAN, cure)

    assert run.outcome == "recovered"
    assert run.back_s is not None and run.back_s < 4


def take(tokens: float, requests: int) -> tuple[bool, float]:
    tokens = min(10.0, tokens + 0.1 * requests)
    return (True, tokens - 1) if tokens >= 1 else (False, tokens)


def raising(tokens: float, requests: int) -> Any:
    raise RuntimeError


def test_a_function_of_a_student_is_a_budget() -> None:
    assert simulate(PLAN, NO_CURE, FunctionBucket(take, 0.1, 10.0)).log == simulate(PLAN, Cure.of("", budget=0.1)).log


@pytest.mark.parametrize("wrong", [lambda tokens, requests: ..., lambda tokens: None, raising, None])
def test_a_function_that_is_not_written_yet_is_replaced(wrong: Callable[..., Any]) -> None:
    own, built_in = FunctionBucket(wrong, 0.5, 2.0), TokenBucket(0.5, 2.0)

    assert [own.take(asked) for asked in range(9)] == [built_in.take(asked) for asked in range(9)]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_plan_names_a_value_that_cannot_be_used(value: float) -> None:
    with pytest.raises(ConfigurationError, match="freeze_s must be above 0"):
        StormPlan(40, freeze_s=value)


def test_figures_state_their_numbers_in_their_alt_text(tmp_path: Path) -> None:
    storm, recovered = simulate(PLAN, NO_CURE), simulate(PLAN, Cure.of("bound", room=30))
    measured = StormRun(NO_CURE, PLAN, storm.log, is_measured=True, doubt="late")
    panels = plots.storms([storm, recovered, measured], back_s=3)
    plane = plots.storm_map([storm, recovered], [measured])

    for drawn in (panels, plane):
        assert isinstance(drawn, AccessibleFigure)
        assert drawn.save(tmp_path / "figure.png").stat().st_size > 10_000
    assert (
        "no cure, simulated: not back, the queue grows; a second at the end: sent 160, new 40, in time 0" in panels.alt
    )
    assert "Back 3 s after the freeze was predicted" in panels.alt
    assert "bound, simulated: back" in panels.alt
    assert "Measured and simulated" in panels.caption and "no cure (late)" in panels.caption
    assert "Measured, load 0.40, 3 retries: not back, the queue grows" in plane.alt
    busy = plots.storm_map([storm], [measured], drain_per_s=50)
    assert "Measured, load 0.80, 3 retries" in busy.alt, "a share of what the worker was seen to do"


@pytest.mark.parametrize("draw", [plots.storms, plots.storm_map])
def test_a_figure_of_no_storm_is_refused(draw: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="no storm"):
        draw([])


def test_a_storm_without_any_result_has_no_time_to_recover() -> None:
    assert StormRun(NO_CURE, PLAN, StormLog(waiting=[3, 1])).back_s is None
    assert StormRun(NO_CURE, PLAN, StormLog(waiting=[3, 1])).outcome == "drains"
