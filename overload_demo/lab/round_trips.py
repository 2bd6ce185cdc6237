"""What a round trip to the store costs: time to the 202, REST calls and commands, beside the plain recipe.

The plain recipe (``experiments/bench/plain_recipe.py``) has the same contract and sends one REST call for each request.
"""

import asyncio
import contextlib
import math
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx

from overload_demo.errors import OverloadDemoError
from overload_demo.lab.job_log import read_effects
from overload_demo.lab.naive_api import checkout_server, require_checkout
from overload_demo.lab.parts import JsonConnection, in_thread, new_run_folder, remove_data
from overload_demo.lab.report import Bill
from overload_demo.lab.simulated_cloud import SimulatedCloud, far_store
from overload_demo.lab.stack import Stack
from overload_demo.load import LoadPlan, LoadSummary, Shape, run_load
from overload_demo.process import kill_and_wait
from overload_demo.store.data_dir import DataDir

CLIENTS = 64  # chosen, as in experiments/bench/cost.py
TIMEOUT_S = 60.0  # chosen: longer than any API here waits for its store
DONE_WITHIN_S = 100.0
LOOK_EVERY_S = 0.05
RECIPE = "experiments.bench.plain_recipe"


@dataclass(frozen=True)
class Acceptance:
    """A constant load on an API, and the REST calls that accepted it.

    ``round_trip_s`` is the simulated distance of the store, NaN for a real one; ``calls`` enqueued ``jobs``, each in
    ``call_s`` seconds on average (NaN for the plain recipe, which does not measure it).
    """

    name: str
    rate_per_s: float
    round_trip_s: float
    max_batch: int
    load: LoadSummary
    calls: int
    jobs: int
    call_s: float

    @property
    def calls_per_job(self) -> float:
        """REST calls of the API for one job."""
        return self.calls / self.jobs if self.jobs else math.nan

    @property
    def p50_ms(self) -> float:
        """Median time to the 202, milliseconds; NaN without one."""
        return 1000 * self.load.response_time.p50_s if self.load.response_time else math.nan

    @property
    def p99_ms(self) -> float:
        """99th percentile of the time to the 202, milliseconds; NaN without one."""
        return 1000 * self.load.response_time.p99_s if self.load.response_time else math.nan


@dataclass(frozen=True)
class PlainRecipe:
    """The plain recipe's API, as a child process on a simulated database of its own."""

    url: str
    cloud: SimulatedCloud
    api_key: ClassVar[None] = None
    headers: ClassVar[dict[str, str]] = {}


@contextlib.asynccontextmanager
async def plain_recipe(round_trip_s: float, runs: Path = Path("runs")) -> AsyncIterator[PlainRecipe]:
    """Run the plain recipe's API for the length of the block, ``round_trip_s`` seconds from its store.

    Raises :class:`ConfigurationError` without a checkout, :class:`OverloadDemoError` when the app does not start.
    """
    data_dir = new_run_folder(runs, "plain-recipe") / "store-1"
    DataDir(data_dir).mark_temporary()
    cleanup = contextlib.ExitStack()
    cleanup.callback(remove_data, data_dir)
    try:
        cloud = await in_thread(cleanup.enter_context, far_store(data_dir, round_trip_s))
        async with checkout_server("-m", "experiments.serving", f"{RECIPE}:app", **cloud.variables) as url:
            yield PlainRecipe(url, cloud)
    finally:
        await in_thread(cleanup.close)


async def acceptance(system: Stack | PlainRecipe, requests: int, rate_per_s: float, name: str = "") -> Acceptance:
    """Send so many requests at a constant rate, and count the calls that enqueue their jobs."""
    plan = LoadPlan(system.url, requests, rate_per_s, Shape.CONSTANT, timeout_s=TIMEOUT_S)
    before = await _enqueued(system)
    load = (await run_load(plan, api_key=system.api_key)).summary()
    calls, jobs, seconds = (now - then for now, then in zip(await _enqueued(system), before, strict=True))
    is_plain = isinstance(system, PlainRecipe)
    return Acceptance(
        name,
        rate_per_s,
        round_trip_s=system.cloud.round_trip_s if system.cloud else math.nan,
        max_batch=1 if isinstance(system, PlainRecipe) else system.settings.overload_max_batch,
        load=load,
        calls=round(calls),
        jobs=load.accepted if is_plain else round(jobs),
        call_s=math.nan if is_plain or not calls else seconds / calls,
    )


async def _enqueued(system: Stack | PlainRecipe) -> tuple[float, float, float]:
    """Return enqueue calls until now, the jobs in them, and the seconds they took."""
    if isinstance(system, PlainRecipe):
        return system.cloud.exchanges, 0, 0
    with contextlib.closing(JsonConnection(system.url, TIMEOUT_S, system.headers)) as connection:
        text = await asyncio.to_thread(connection.get_text, "/metrics")
    names = "overload_commit_batch_jobs_count", "overload_commit_batch_jobs_sum", "overload_commit_seconds_sum"
    calls, jobs, seconds = (float(found[1]) for name in names if (found := re.search(rf"(?m)^{name} (\S+)", text)))
    return calls, jobs, seconds


async def whole_life(system: Stack | PlainRecipe, jobs: int, name: str) -> Bill:
    """Post ``jobs`` from 64 clients, have them done by one worker, ask for each result; return what that costs.

    The simulated database counts; a stack needs a ``round_trip_s``. Raises :class:`OverloadDemoError` unless all jobs
    were accepted and done.
    """
    if system.cloud is None:
        raise OverloadDemoError("only a simulated database counts: start the stack with a round_trip_s")
    before, began_s = await system.cloud.counts(), time.monotonic()
    load = await run_load(LoadPlan(system.url, jobs, connections=CLIENTS), api_key=system.api_key)
    if len(load.accepted_ids) != jobs:
        raise OverloadDemoError(f"not all of {jobs:,} jobs were accepted: {load.summary().failures}")
    try:
        async with asyncio.timeout(DONE_WITHIN_S):
            await (_work(system) if isinstance(system, PlainRecipe) else _worked(system, jobs))
            seconds = time.monotonic() - began_s
            await _ask_for(system, load.accepted_ids)
    except TimeoutError:
        raise OverloadDemoError(f"not every job was done within {DONE_WITHIN_S:g} s") from None
    counted = (now - then for now, then in zip(await system.cloud.counts(), before, strict=True))
    return Bill(*counted, name=name, jobs=jobs, seconds=seconds)


async def _work(plain: PlainRecipe) -> None:
    """Run the plain recipe's worker until its queue is empty."""
    command = sys.executable, "-m", RECIPE, "--until-empty"
    environment = dict(os.environ) | plain.cloud.variables
    process = await asyncio.create_subprocess_exec(*command, cwd=require_checkout(), env=environment)
    try:
        await process.wait()
    finally:
        await kill_and_wait(process)


async def _worked(stack: Stack, jobs: int) -> None:
    """Wait for as many effects in the stack's log, which takes no call to the store."""
    while True:
        if len(read_effects(stack.effect_log)) >= jobs:
            return
        await asyncio.sleep(LOOK_EVERY_S)


async def _ask_for(system: Stack | PlainRecipe, job_ids: Sequence[str]) -> None:
    """Ask for each job, 64 at a time, until it is done."""
    turns = asyncio.Semaphore(CLIENTS)
    async with httpx.AsyncClient(base_url=system.url, headers=system.headers, trust_env=False, timeout=30) as client:

        async def ask(job_id: str) -> None:
            async with turns:
                while True:
                    if (await client.get(f"/jobs/{job_id}")).json()["status"] == "done":
                        return
                    await asyncio.sleep(LOOK_EVERY_S)

        await asyncio.gather(*map(ask, job_ids))
