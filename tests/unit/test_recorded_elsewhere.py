"""A recorded run of the naive API is compared at equal load only, and another machine is noted."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from experiments.bench.record import RESULTS
from overload_demo.lab import plots, report
from overload_demo.lab.naive_api import equal_recorded
from overload_demo.lab.result import BaselineRun, SpikeResult, recorded_baseline
from overload_demo.load import LoadPlan, Shape
from overload_demo.load.machine import Environment

ELSEWHERE = "recorded on another machine"
OTHERS = {"processor": "another one", "cores": 64, "system": "Linux 1.0", "python": "3.99.0"}


@pytest.fixture(scope="module")
def recorded() -> BaselineRun:
    """The recorded spike on the variant of the comparison."""
    return next(run for run in recorded_baseline() if run.variant == "def-slot" and run.shape is Shape.SPIKE)


def beside(recorded: BaselineRun, here: Environment, **other: Any) -> tuple[BaselineRun | None, str]:
    """Find the run that matches the recorded one's conditions, some of them ``other``."""
    names = ("delay_s", "rate_per_s", "shape", "timeout_s", "requests", "max_duration_s")
    asked = {name: getattr(recorded, name) for name in names} | other
    delay_s = asked.pop("delay_s")
    return equal_recorded(here, recorded.variant, LoadPlan("http://127.0.0.1", **asked), delay_s)


def test_a_run_of_the_same_machine_is_noted_by_date_only(recorded: BaselineRun) -> None:
    run, note = beside(recorded, recorded.summary.environment)

    assert run == recorded
    assert note == f"recorded {recorded.recorded_at[:10]}, not measured now"


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_of_another_machine_is_noted_with_that_machine(recorded: BaselineRun, name: str) -> None:
    there = recorded.summary.environment

    run, note = beside(recorded, there.model_copy(update={name: OTHERS[name]}))

    assert run == recorded
    assert f"{ELSEWHERE} ({there.cores} cores, {there.system}, Python {there.python})" in note
    assert "shares of capacity" in note


def test_a_limit_or_a_library_makes_no_other_machine(recorded: BaselineRun) -> None:
    changes = {"descriptor_limit": 256, "versions": {"aiohttp": "9"}}

    _, note = beside(recorded, recorded.summary.environment.model_copy(update=changes))

    assert ELSEWHERE not in note


@pytest.mark.parametrize(
    "other",
    [
        {"delay_s": 0.1},
        {"rate_per_s": 1.0},
        {"shape": Shape.POISSON},
        {"timeout_s": 1.0},
        {"requests": 1},
        {"max_duration_s": 20.0},
    ],
    ids=lambda other: next(iter(other)),
)
def test_no_run_matches_at_unequal_work_load_or_timeout(recorded: BaselineRun, other: dict[str, Any]) -> None:
    assert beside(recorded, recorded.summary.environment, **other) == (
        None,
        "no recorded run has equal work, load and timeout",
    )


def test_the_figure_and_the_notes_state_the_other_machine(recorded: BaselineRun) -> None:
    _, note = beside(recorded, recorded.summary.environment.model_copy(update=OTHERS))
    beside_it = {"baseline": recorded, "baseline_source": "recorded", "baseline_note": note}
    result = SpikeResult.read(RESULTS / "spike.json").model_copy(update=beside_it)

    assert ELSEWHERE in plots.spike(result).caption
    assert ELSEWHERE in " ".join(report.notes(result))


def table_row(result: SpikeResult, name: str) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=200).print(report.table(result))
    [line] = [line for line in text.getvalue().splitlines() if line.strip().startswith(name)]
    return [cell.strip() for cell in line.split("│")[1:]]


def test_rates_are_also_shown_as_shares_of_capacity(recorded: BaselineRun) -> None:
    result = SpikeResult.read(RESULTS / "spike.json").model_copy(update={"baseline": recorded})

    assert table_row(result, "drain rate as a share of that") == [
        f"{100 * result.drain_rate_per_s / result.capacity_per_s:.0f} %",
        f"{100 * recorded.summary.accepted_per_s / recorded.capacity_per_s:.0f} %",
    ]


def test_a_run_without_a_completed_job_has_no_share() -> None:
    result = SpikeResult.read(RESULTS / "spike.json").model_copy(update={"capacity_per_s": 0.0})

    assert table_row(result, "drain rate as a share of that")[0] == "unknown"


def test_a_drain_seen_in_one_sample_has_an_unknown_rate() -> None:
    result = SpikeResult.read(RESULTS / "spike.json").model_copy(update={"drain_rate_per_s": 0.0})

    for name in ("drain rate, jobs/s", "drain rate as a share of that"):
        assert table_row(result, name)[0] == "unknown"


def test_the_rates_of_slow_jobs_are_not_rounded_to_zero() -> None:
    slow = {"drain_rate_per_s": 0.0164, "capacity_per_s": 0.0166}
    result = SpikeResult.read(RESULTS / "spike.json").model_copy(update=slow)

    assert table_row(result, "drain rate, jobs/s")[0] == "0.0164"
    assert table_row(result, "capacity of the one slot")[0] == "0.0166"
    assert table_row(result, "drain rate as a share of that")[0] == "99 %"


def test_random_arrivals_of_another_seed_are_another_load(recorded: BaselineRun) -> None:
    random = recorded.model_copy(update={"shape": Shape.POISSON})
    names = ("requests", "rate_per_s", "shape", "timeout_s", "max_duration_s")
    plan = LoadPlan("http://127.0.0.1", **{name: getattr(random, name) for name in names})
    random = random.model_copy(update={"summary": random.summary.model_copy(update={"planned": plan.schedule().size})})

    assert random.matches(plan, random.delay_s)
    assert not random.matches(replace(plan, seed=1), random.delay_s)
