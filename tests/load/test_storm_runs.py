"""Storms on a real stack: the freeze, the clients' records and the worker's log on one axis of time."""

from pathlib import Path

import pytest

from overload_demo.lab.stack import Stack
from overload_demo.lab.storm import Cure, FunctionBucket, StormPlan, run_storms
from overload_demo.load import LoadProgress

pytestmark = pytest.mark.anyio
PLAN = StormPlan(per_s=20, work_s=0.001, timeout_s=0.5, calm_s=0.5, freeze_s=1.7, after_s=1.0)


def spending(tokens: float, requests: int) -> tuple[bool, float]:
    return tokens >= 1, tokens - (tokens >= 1)


@pytest.mark.course
async def test_each_storm_has_a_freeze_and_a_stack_of_its_own(tmp_path: Path) -> None:
    seen: list[tuple[int, float, LoadProgress]] = []
    budgets: list[FunctionBucket] = []

    def budget() -> FunctionBucket:
        budgets.append(FunctionBucket(spending, 0.1, 4.0))
        return budgets[-1]

    first, second = await run_storms(
        [(PLAN, Cure("no cure")), (PLAN, Cure.of("budget", budget=0.1, room=50))],
        lambda *report: seen.append(report),
        budget=budget,
        runs=tmp_path,
    )

    assert Stack.current is None
    for run in (first, second):
        frozen = [at_s for at_s in run.log.done_s if PLAN.calm_s + 1.2 < at_s < PLAN.thaws_s]
        assert run.is_measured and frozen == [], "nothing is done while the store is frozen"
        assert [at_s for at_s in run.log.done_s if at_s > PLAN.thaws_s], "and the work goes on afterwards"
        assert len(run.log.requests_s) == 64 and len(run.log.waiting) == 2
        assert len(run.log.in_time_s) <= len(run.log.requests_s) <= len(run.log.attempts_s)
    assert len(first.log.attempts_s) > 64, "clients repeat what is not done in time"
    assert len(budgets) == 1, "only clients with a budget have the student's"
    assert len(second.log.attempts_s) <= 64 + 4
    assert {number for number, *_ in seen} == {1, 2}


@pytest.mark.exhaustive
async def test_an_error_in_mid_storm_is_raised_as_it_is_and_the_stack_is_stopped(tmp_path: Path) -> None:
    class Broken:
        def take(self, requests: int) -> bool:
            raise TypeError("cannot unpack None")

    with pytest.raises(TypeError, match="cannot unpack None"):
        await run_storms([(PLAN, Cure.of("budget", budget=0.1, room=50))], budget=Broken, runs=tmp_path)

    assert Stack.current is None
