"""The naive API under rising load: every request is accounted for, and an overload delays the next step."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.lab import plots, result
from overload_demo.lab.naive_api import breaks_at_per_s, load_steps
from overload_demo.lab.result import recorded_baseline
from tests.support.steps import step

SHORT = {"seconds": 0.5, "delay_s": 0.01, "timeout_s": 0.2}


@pytest.mark.anyio
async def test_the_step_after_an_overload_waits_behind_abandoned_requests() -> None:
    seen: set[int] = set()

    def note(number: int, *_: object) -> None:
        seen.add(number)

    loads = SHORT | {"delay_s": 0.05}  # the overload is 25 s of work: it outlasts the start of the next load
    calm, overload, after = await load_steps("def-slot", [10, 1000, 10], **loads, fresh=False, on_progress=note)

    assert (calm.planned, overload.planned, after.planned) == (5, 500, 5)
    for one in (calm, overload, after):
        assert one.planned == sum(one.outcomes.values())
        assert one.goodput_per_s * one.seconds <= one.answered + 0.01 <= one.completed + 0.01
    assert (calm.on_a_fresh_server, after.on_a_fresh_server) == (True, False)
    assert overload.wasted > 0
    assert after.backlog_before > 0
    assert after.answered == 0
    assert seen == {1, 2, 3}
    assert f"{calm.answered} of 5" in plots.spoiled([calm, overload, after]).alt


@pytest.mark.exhaustive
@pytest.mark.anyio
async def test_a_step_on_a_fresh_server_is_independent_of_the_one_before() -> None:
    overload, calm = await load_steps("def-slot", [1000, 20], **(SHORT | {"timeout_s": 1.0}))

    assert overload.backlog_after > 0
    assert (calm.backlog_before, calm.on_a_fresh_server) == (0, True)
    assert calm.answered > 0


@pytest.mark.anyio
async def test_interrupted_steps_end_server_and_load() -> None:
    under_way = asyncio.Event()

    def note(*_: object) -> None:
        under_way.set()

    others = set(psutil.Process().children(recursive=True))
    steps = asyncio.create_task(load_steps("def-slot", [50], **(SHORT | {"seconds": 60.0}), on_progress=note))
    await asyncio.wait_for(under_way.wait(), 30)
    children = set(psutil.Process().children(recursive=True)) - others
    steps.cancel()
    with pytest.raises(asyncio.CancelledError):
        await steps

    assert len(children) >= 2
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("rates_per_s", "seconds", "complaint"),
    [([], 1.0, "no step"), ([10], 0.0, "longer than 0"), ([0.1], 1.0, "not one request")],
)
async def test_an_empty_load_is_refused(rates_per_s: list[float], seconds: float, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        await load_steps("def-slot", rates_per_s, **(SHORT | {"seconds": seconds}))


@pytest.mark.anyio
async def test_without_a_checkout_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(result.overload_demo, "__file__", str(tmp_path / "overload_demo" / "__init__.py"))

    with pytest.raises(ConfigurationError, match=r"needs a checkout.* Clone the repository"):
        await load_steps("def-slot", [10], **SHORT)


def test_it_breaks_at_the_lowest_rate_where_more_than_one_request_in_a_hundred_fails() -> None:
    fine, broken = step(planned=1000, answered=990, offered_per_s=50.0), step(planned=1000, answered=989)

    assert breaks_at_per_s([step(offered_per_s=500.0), broken, fine]) == 400.0
    assert math.isnan(breaks_at_per_s([fine]))


def test_waste_is_a_share_of_all_completed_jobs() -> None:
    assert step(completed=100, answered=25).wasted_share == 0.75
    assert step(completed=0, answered=0).wasted_share == 0.0


def test_figures_state_their_numbers_and_refuse_an_unfair_comparison() -> None:
    overload = step()
    calm = step(offered_per_s=80.0, planned=480, answered=480)

    assert "5/s at 400/s" in plots.goodput([calm, overload], breaks_at_per_s=100, last_per_s=90).alt
    assert "99 % never answered" in plots.ccdf([calm, overload]).alt
    assert "2,368 read timeout" in plots.endings([calm, overload]).alt
    for unfair in ([calm, overload], [overload, replace(calm, on_a_fresh_server=False)]):
        with pytest.raises(ConfigurationError, match="same load"):
            plots.spoiled(unfair)
    with pytest.raises(ConfigurationError, match="no step"):
        plots.goodput([])


def test_recorded_variants_are_compared_on_one_machine_only_and_it_is_named() -> None:
    runs = recorded_baseline()
    there = runs[0].summary.environment
    here = there.model_copy(update={"processor": "another one"})

    assert "another machine" not in plots.variants(runs, there).caption
    assert f"another machine ({there.cores} cores" in plots.variants(runs, here).caption
    elsewhere = runs[0].model_copy(update={"summary": runs[0].summary.model_copy(update={"environment": here})})
    with pytest.raises(ConfigurationError, match="no fair comparison"):
        plots.variants([elsewhere, *runs[1:]], here)
    with pytest.raises(ConfigurationError, match="record_baseline"):
        plots.variants([], here)
