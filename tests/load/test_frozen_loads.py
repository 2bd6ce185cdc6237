"""Loads on a stack of which a part stands still, and what is left when such a load ends early."""

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import psutil
import pytest

from overload_demo.errors import OverloadDemoError
from overload_demo.lab.crashes import frozen
from overload_demo.lab.measuring import Freeze, in_turns, measure
from overload_demo.lab.stack import Stack
from overload_demo.load import LoadPlan, Shape
from tests.support.waiting import wait_until, wait_until_async

pytestmark = pytest.mark.anyio


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


async def stops(pid: int) -> bool:
    return is_stopped(pid)


@pytest.mark.course
async def test_an_open_loop_meets_the_freeze_that_a_paced_closed_loop_leaves_out(tmp_path: Path) -> None:
    freeze, rate_per_s, clients = Freeze("api", 0.3, 0.8), 200.0, 4
    async with await Stack.start(placement="process", runs=tmp_path) as stack:
        size = {"requests": 400, "rate_per_s": rate_per_s}
        closed = LoadPlan(stack.url, **size, connections=clients, pace_s=clients / rate_per_s, max_duration_s=2.0)
        seen: list[int] = []

        plans = [closed, LoadPlan(stack.url, **size, shape=Shape.CONSTANT)]
        closed_run, open_run = await measure(stack, plans, freeze, lambda number, *_: seen.append(number))

        for run in (closed_run, open_run):
            assert run.frozen_s is not None and run.frozen_s[1] - run.frozen_s[0] >= freeze.for_s
        assert np.count_nonzero(closed_run.times_s > 0.5 * freeze.for_s) <= 3 * clients
        assert np.count_nonzero(open_run.times_s > 0.5 * freeze.for_s) > 10 * clients
        assert closed_run.result.summary().not_fired > 0 == open_run.result.summary().not_fired
        assert set(seen) == {1, 2}


@pytest.mark.course
async def test_turns_begin_with_a_and_b_alternately_and_are_sorted_back(tmp_path: Path) -> None:
    async with await Stack.start(placement="process", runs=tmp_path) as stack:
        a, b = (LoadPlan(stack.url, 30_000, connections=2, max_duration_s=3.0, pace_s=pace_s) for pace_s in (0.0, 0.2))

        pairs = await in_turns(stack, a, b, 2)

        assert pairs.b_wins == 0, "B keeps a pace of 10 requests a second"
        assert pairs.a_per_s.shape == pairs.b_per_s.shape == (2,)


async def test_turns_that_accept_nothing_are_an_error(tmp_path: Path) -> None:
    async with await Stack.start(runs=tmp_path, processing_delay_s=60.0, overload_max_queue_depth=1) as stack:
        plan = LoadPlan(stack.url, 30_000, connections=2, max_duration_s=0.2)
        await measure(stack, [LoadPlan(stack.url, 30, 200.0, Shape.CONSTANT)])  # fill worker and queue

        with pytest.raises(OverloadDemoError, match="accepted no request after its first fifth"):
            await in_turns(stack, plan, plan, 1)


async def test_a_cancelled_load_leaves_no_stopped_part(tmp_path: Path) -> None:
    async with await Stack.start(placement="process", runs=tmp_path) as stack:
        pid = stack.process_ids()["redis"]
        plan = LoadPlan(stack.url, 6_000, 100.0, Shape.CONSTANT)
        running = asyncio.create_task(measure(stack, [plan], Freeze("redis", 0.1, 60.0)))
        await wait_until_async("the store is stopped", lambda: stops(pid))

        running.cancel()
        await asyncio.wait([running])

        assert running.cancelled() and not is_stopped(pid)


async def test_a_part_in_the_kernel_is_not_frozen(tmp_path: Path) -> None:
    async with await Stack.start(runs=tmp_path) as stack:
        with pytest.raises(OverloadDemoError, match="not running as a process"):
            await measure(stack, [LoadPlan(stack.url, 200, 200.0, Shape.CONSTANT)], Freeze("api", 0.0, 0.1))


@pytest.mark.exhaustive
def test_a_part_of_a_killed_process_goes_on_and_ends(tmp_path: Path) -> None:
    script = """
        import asyncio, sys
        from pathlib import Path
        from overload_demo.lab.crashes import frozen
        from overload_demo.lab.stack import Stack

        async def main():
            stack = await Stack.start(placement="process", runs=Path(sys.argv[1]))
            with frozen(stack, "api"):
                print(stack.process_ids()["api"], flush=True)
                await asyncio.sleep(600)

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_stopped(pid)
        process.kill()

    wait_until("the API has ended", lambda: not psutil.pid_exists(pid), 20.0)


async def test_a_part_is_frozen_for_the_length_of_the_block_and_not_before_it_is_due(tmp_path: Path) -> None:
    async with await Stack.start(placement="process", runs=tmp_path) as stack:
        plan = LoadPlan(stack.url, 20, 200.0, Shape.CONSTANT)
        [run] = await measure(stack, [plan], Freeze("api", 60.0, 1.0))
        assert (run.frozen_s, run.result.summary().accepted) == (None, 20)

        pid = stack.process_ids()["worker"]
        with frozen(stack, "worker"):
            await wait_until_async("the worker is stopped", lambda: stops(pid))
        assert not is_stopped(pid)
