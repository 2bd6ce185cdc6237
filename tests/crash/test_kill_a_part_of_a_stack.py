"""A killed part of a stack is restarted, jobs are accounted for, and the ledger counts repeated ones."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab import plots
from overload_demo.lab.crashes import Kill, run_with_kills
from overload_demo.lab.ledger import ledger_of, read_charges
from overload_demo.lab.spike_plan import SpikePlan, SpikeProgress
from overload_demo.lab.stack import KILLABLE, Stack
from overload_demo.load import RetryPolicy
from overload_demo.load.plan import Until
from tests.support.cases import plain_first
from tests.support.running import JOB, wait_for
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio
PLAN = SpikePlan(requests=360, rate_per_s=400, baseline="none")
# a kill between two batches repeats no job; four such kills are very unlikely
KILLS = [Kill("worker", share) for share in (0.15, 0.3, 0.5, 0.7)]
CHARGE, CHARGE_ONCE = "overload_demo.lab.ledger:charge", "overload_demo.lab.ledger:charge_once"


@asynccontextmanager
async def a_stack(folder: Path, **settings: Any) -> AsyncIterator[Stack]:
    """A stack of processes whose jobs take 5 ms."""
    wanted = {"placement": "process", "processing_delay_s": 0.005, "runs": folder} | settings
    async with await Stack.start(**wanted) as stack:
        yield stack


async def until(description: str, predicate: Callable[[], object]) -> None:
    """Wait without blocking the loop, on which the stack supervises its parts."""
    await anyio.to_thread.run_sync(wait_until, description, predicate, 20.0)


@pytest.mark.parametrize("name", plain_first([name for name in KILLABLE if name != "primary"]))
async def test_a_killed_part_is_restarted_and_jobs_are_accepted_again(tmp_path: Path, name: str) -> None:
    async with a_stack(tmp_path) as stack:
        before = stack.process_ids()

        stack.kill(name)

        with httpx.Client(base_url=stack.url, headers=stack.headers, timeout=30, trust_env=False) as client:
            answer = await anyio.to_thread.run_sync(lambda: client.post("/jobs", json=JOB))
            assert answer.status_code == 202
            await anyio.to_thread.run_sync(wait_for, client, [answer.json()["job_id"]])
        await until("another process runs", lambda: stack.process_ids().get(name, before[name]) != before[name])
        assert stack.restarts == ({name: 1} if name in ("api", "worker") else {})


async def test_an_impossible_kill_is_refused_in_one_line(tmp_path: Path) -> None:
    async with a_stack(tmp_path, placement="kernel") as stack:
        for name in ("api", "worker"):
            with pytest.raises(ConfigurationError, match="would kill this Jupyter kernel"):
                stack.kill(name)
        with pytest.raises(ConfigurationError, match="'clock': it is one of api, worker, gateway, redis"):
            stack.kill("clock")
        with pytest.raises(ConfigurationError, match='need placement="process"'):
            await run_with_kills(stack, PLAN, [Kill("worker", 0.5)])
        with pytest.raises(ConfigurationError, match='clients with until="accepted"'):
            await run_with_kills(stack, replace(PLAN, retry=RetryPolicy(until=Until.DONE)), [])

        stack.kill("redis")
        await until("the gateway has started another", lambda: "redis" in stack.process_ids())
    with pytest.raises(OverloadDemoError, match=re.escape("the gateway is not running")):
        stack.kill("gateway")


@pytest.mark.parametrize(("part", "share"), [("clock", 0.5), ("worker", 0.0), ("worker", 1.0), ("api", float("nan"))])
def test_an_invalid_kill_is_refused(part: str, share: float) -> None:
    with pytest.raises(ConfigurationError):
        Kill(part, share)


@pytest.mark.exhaustive
async def test_a_worker_killed_before_the_settlement_charges_twice_and_counts_it(tmp_path: Path) -> None:
    async with a_stack(tmp_path, worker_handler=CHARGE, worker_max_attempts=10) as stack:
        result = await run_with_kills(stack, PLAN, KILLS)
        charged = read_charges(ledger_of(stack.effect_log))

    assert [kill.part for kill in result.kills] == ["worker"] * 4
    assert (result.spike.accepted, result.spike.done, result.spike.lost) == (360, 360, 0)
    assert result.charges is not None
    assert (result.charges.never, result.charges.more) == (0, sum(count > 1 for count in charged.values()))
    # each repeated job had been charged before, and no other job was charged twice
    assert (
        0 < result.charges.more <= sum(kill.again for kill in result.kills) <= sum(kill.held for kill in result.kills)
    )
    assert all(kill.back_s is not None and kill.back_s > 0 for kill in result.kills)
    assert f"{result.kills[0].held} jobs were leased" in plots.lives(result).alt
    assert "360 of 360 requests were accepted, 360 jobs done, 0 failed, 0 lost" in plots.recovery(result).alt
    assert f"{result.charges.more} more than once" in plots.designs({"plain": result}, twice={"plain": 4}).alt


@pytest.mark.exhaustive
async def test_an_idempotent_handler_charges_once_although_jobs_run_twice(tmp_path: Path) -> None:
    async with a_stack(tmp_path, worker_handler=CHARGE_ONCE, worker_max_attempts=10) as stack:
        result = await run_with_kills(stack, PLAN, KILLS)

    assert sum(kill.again for kill in result.kills) > 0
    assert result.charges is not None
    assert (result.charges.never, result.charges.once, result.charges.more) == (0, 360, 0)


@pytest.mark.exhaustive
async def test_without_retries_jobs_stay_uncharged_and_charged_ones_fail(tmp_path: Path) -> None:
    async with a_stack(tmp_path, worker_handler=CHARGE, worker_max_attempts=1) as stack:
        result = await run_with_kills(stack, PLAN, KILLS)

    assert result.charges is not None
    assert result.charges.more == 0
    assert result.spike.failed == result.charges.never + result.failed_but_charged > 0
    assert result.spike.lost == 0


@pytest.mark.exhaustive
async def test_api_and_store_killed_in_mid_spike_lose_no_accepted_job(tmp_path: Path) -> None:
    plan = SpikePlan(requests=400, rate_per_s=200, baseline="none")
    async with a_stack(tmp_path, worker_handler=CHARGE_ONCE, worker_max_attempts=10) as stack:
        result = await run_with_kills(stack, plan, [Kill("api", 0.2), Kill("gateway", 0.4), Kill("redis", 0.6)])

    assert [kill.part for kill in result.kills] == ["api", "gateway", "redis"]
    assert result.spike.accepted > 0
    assert result.spike.lost == 0
    assert result.spike.done == result.spike.accepted
    assert result.charges is not None
    assert result.charges.once == result.spike.accepted


@pytest.mark.exhaustive
async def test_a_run_cancelled_after_a_kill_leaves_a_usable_stack(tmp_path: Path) -> None:
    async with a_stack(tmp_path, worker_handler=CHARGE_ONCE) as stack:
        with anyio.CancelScope() as scope:

            def note(_: SpikeProgress) -> None:
                if stack.restarts:
                    scope.cancel()

            await run_with_kills(stack, SpikePlan(20_000, 200, baseline="none"), [Kill("worker", 0.001)], note)
        assert scope.cancelled_caught

        result = await run_with_kills(stack, PLAN, [])

    assert result.kills == [] and result.spike.done == 360


@pytest.mark.exhaustive
async def test_without_a_ledger_there_are_no_charges(tmp_path: Path) -> None:
    async with a_stack(tmp_path) as stack:
        result = await run_with_kills(stack, PLAN, [])

    assert result.charges is None
    assert "no worker was killed" in plots.lives(result).alt
    assert "Kills: none" in plots.recovery(result, back_s=1).alt
    assert read_charges(tmp_path / "none") == {}
