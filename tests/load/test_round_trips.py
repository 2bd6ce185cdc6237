"""What a round trip costs: counted by the simulated database, and equal work for the plain recipe."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab import plots, theory
from overload_demo.lab.report import bills
from overload_demo.lab.round_trips import acceptance, plain_recipe, whole_life
from overload_demo.lab.stack import Stack
from overload_demo.queue.group_commit import GroupCommit

FAR_S = 0.02
pytestmark = pytest.mark.anyio


@pytest.mark.exhaustive
async def test_a_batch_limit_of_one_takes_a_call_for_each_job_and_a_larger_one_fewer(tmp_path: Path) -> None:
    found = {}
    for most in (1, 64):
        wanted = {"processing_delay_s": 0.0, "round_trip_s": FAR_S, "overload_max_batch": most}
        async with await Stack.start(runs=tmp_path, **wanted) as stack:
            found[most] = await acceptance(stack, 40, 400)

    assert [(one.load.accepted, one.jobs) for one in found.values()] == [(40, 40)] * 2
    assert found[1].calls_per_job == 1 > found[64].calls_per_job > 0
    figure = plots.batches(list(found.values()), found[1], needed=4)
    assert "1: median" in figure.alt and "1.00 calls a job" in figure.alt and "limit is 4" in figure.alt
    assert "Only the batch limit differs" in figure.caption
    with pytest.raises(ConfigurationError, match="different loads"):
        plots.distances([found[1], replace(found[64], rate_per_s=1)])
    assert all(one.call_s >= FAR_S for one in found.values())
    assert all(one.p99_ms >= one.p50_ms >= 1000 * FAR_S for one in found.values())


@pytest.mark.course
async def test_the_whole_life_of_a_job_is_counted_for_the_stack_and_for_the_plain_recipe(tmp_path: Path) -> None:
    async with await Stack.start(runs=tmp_path, processing_delay_s=0.0, round_trip_s=FAR_S) as stack:
        ours = await whole_life(stack, 60, "group commit")
    async with plain_recipe(FAR_S, tmp_path) as plain:
        seen = await acceptance(plain, 5, 50)
        theirs = await whole_life(plain, 4, "plain recipe")

    assert (seen.load.accepted, seen.calls, seen.calls_per_job) == (5, 5, 1)
    assert ours.calls < 60 and ours.calls <= ours.least_commands < ours.most_commands
    # HSET and LPUSH; RPOP, HSET, HGET, HSET and EXPIRE for these and the five before; HGETALL; one RPOP finds nothing.
    assert theirs.least_commands == theirs.most_commands == 2 * 4 + 5 * 9 + 4 + 1
    assert bills(ours, theirs).row_count == 7
    assert not list(tmp_path.glob("*/store-*"))


async def test_a_store_that_counts_nothing_is_refused(tmp_path: Path) -> None:
    async with await Stack.start(runs=tmp_path, processing_delay_s=0.0) as stack:
        with pytest.raises(OverloadDemoError, match="round_trip_s"):
            await whole_life(stack, 1, "near")


@pytest.mark.parametrize(("rate_per_s", "call_s", "jobs"), [(200, 0.05, 5), (201, 0.05, 6), (1, 0.001, 1)])
def test_the_smallest_batch_holds_what_arrives_during_a_call(rate_per_s: float, call_s: float, jobs: int) -> None:
    assert theory.smallest_batch(rate_per_s, call_s) == jobs


def test_theory_counts_as_many_calls_in_flight_as_the_group_commit() -> None:
    defaults = [inspect.signature(it).parameters for it in (theory.smallest_batch, GroupCommit)]

    assert defaults[0]["calls_at_once"].default == defaults[1]["calls_at_once"].default
