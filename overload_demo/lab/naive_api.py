"""Run the naive API and measure it: under one load, or under a rising one in steps. Or find a recorded run.

Its app is in ``experiments/`` of a checkout and is never imported, so that neither side depends on the other.
"""

import asyncio
import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import overload_demo
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab.parts import JsonConnection
from overload_demo.lab.result import BaselineRun, BaselineSeries, Variant, recorded_baseline
from overload_demo.lab.spike_plan import OnStepProgress
from overload_demo.load import LoadPlan, LoadResult, Shape, calibrate, run_load
from overload_demo.load.generator import RATE_PER_PROCESS_PER_S, OnLoadProgress
from overload_demo.load.load_result import LoadSummary
from overload_demo.load.machine import Environment, socket_cap
from overload_demo.load.plan import Floats
from overload_demo.process import descriptor_limit, kill_and_wait

CALIBRATION_S = 1.5
START_WITHIN_S = 30.0
SAMPLE_EVERY_S = 0.2
SAMPLE_WITHIN_S = 10.0
BROKEN_SHARE = 0.01
BUCKETS = 10  # in which the course of a step is kept
_PACKAGES = ("fastapi", "httptools", "starlette", "uvicorn", "uvloop")


@dataclass(frozen=True)
class NaiveServer:
    """A running naive API, and its own counts with the times they were read, CLOCK_MONOTONIC.

    The counts ``in_flight`` and ``completed`` include clients that have left; ``slot_capacity_per_s`` is None without a
    slot. An app with a blocked event loop yields them late.
    """

    url: str
    connection: JsonConnection
    samples: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    async def sample(self) -> dict[str, Any]:
        """Read the counts. Raises :class:`OverloadDemoError` when two requests get no response."""
        for _ in range(2):  # the server may have closed the connection because it was idle
            with contextlib.suppress(OSError, ValueError):
                counts = await asyncio.to_thread(self.connection.get, "/stats")
                self.samples.append((time.monotonic(), counts))
                return counts
        raise OverloadDemoError("the naive baseline did not answer /stats")

    async def sample_until_cancelled(self) -> None:
        """Take five samples a second; skip those without a response."""
        while True:
            with contextlib.suppress(OverloadDemoError):
                await self.sample()
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def send(self, plan: LoadPlan, on_progress: OnLoadProgress | None) -> LoadResult:
        """Send ``plan`` from enough processes for the sockets that are open at once if every request times out."""
        by_sockets = min(plan.requests, plan.rate_per_s * plan.timeout_s) / socket_cap(descriptor_limit())
        processes = min(plan.requests, math.ceil(max(by_sockets, plan.rate_per_s / RATE_PER_PROCESS_PER_S)))
        plan = replace(plan, url=self.url, processes=processes, success_status=200)
        return await run_load(plan, on_progress=on_progress)


async def run_baseline(
    variant: Variant, plan: LoadPlan, delay_s: float, on_progress: OnLoadProgress | None = None
) -> BaselineRun:
    """Start the naive API, send ``plan`` to it, whatever its URL is, and stop it.

    ``delay_s`` is the work, seconds a job; ``plan`` must limit its duration. Cancellable. Raises
    :class:`ConfigurationError` without a checkout, :class:`OverloadDemoError` when the app does not start.
    """
    async with baseline_server(variant, delay_s) as server:
        unloaded_per_s = await calibrate(server.url, CALIBRATION_S, success_status=200)
        before = await server.sample()
        sampling = asyncio.create_task(server.sample_until_cancelled())
        try:
            result = await server.send(plan, on_progress)
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
    samples = [(at_mono_s - result.started_mono_s, counts) for at_mono_s, counts in server.samples]
    during = [(at_s, counts) for at_s, counts in samples if at_s >= 0]
    return BaselineRun(
        variant=variant,
        delay_s=delay_s,
        **asdict(plan),
        recorded_at=result.started_at,
        server_command=" ".join(("python", *_server_arguments(variant, delay_s))),
        server_versions={name: version(name) for name in _PACKAGES},
        slot_capacity_per_s=before["slot_capacity_per_s"],
        slot_under_load_per_s=samples[-1][1]["slot_capacity_per_s"],
        unloaded_per_s=round(unloaded_per_s, 1),
        summary=result.summary(),
        series=BaselineSeries(
            **result.series().model_dump(),
            sampled_at_s=[round(at_s, 2) for at_s, _ in during],
            app_in_flight=[counts["in_flight"] for _, counts in during],
            app_completed=[counts["completed"] - before["completed"] for _, counts in during],
        ),
    )


@contextlib.asynccontextmanager
async def baseline_server(variant: Variant, delay_s: float) -> AsyncIterator[NaiveServer]:
    """Run the naive API as a child process for the length of the block. Raises as :func:`run_baseline` does."""
    async with checkout_server(*_server_arguments(variant, delay_s), "--port", "0", "--parent-pipe") as url:
        with contextlib.closing(JsonConnection(url, SAMPLE_WITHIN_S)) as connection:
            yield NaiveServer(url, connection)


@contextlib.asynccontextmanager
async def checkout_server(*arguments: str, **variables: str) -> AsyncIterator[str]:
    """Run ``python ARGUMENTS`` of the checkout, which prints its URL, for the length of the block; yield the URL.

    ``variables`` are added to its environment. Raises as :func:`run_baseline` does.
    """
    root = require_checkout()
    pipe = asyncio.subprocess.PIPE
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments), cwd=root, env=os.environ | variables, stdin=pipe, stdout=pipe, stderr=errors
        )
        try:
            assert process.stdout is not None
            line = b""
            with contextlib.suppress(TimeoutError):
                line = await asyncio.wait_for(process.stdout.readline(), START_WITHIN_S)
            if not line:
                errors.seek(0)
                output = errors.read().decode(errors="replace").strip().splitlines() or ["no output"]
                raise OverloadDemoError(f"the server of the comparison did not start: {output[-1]}")
            yield str(json.loads(line)["url"])
        finally:
            await kill_and_wait(process)


def _server_arguments(variant: Variant, delay_s: float) -> tuple[str, ...]:
    return ("-m", "experiments.naive_sync", "--variant", variant, "--delay", f"{delay_s:g}")


@dataclass(frozen=True)
class LoadStep:
    """One step: requests at one rate for so many ``seconds``, every one accounted for in ``summary``.

    ``response_s`` are the times of the responses, sorted; ``answered_per_s`` is their rate in equal parts of the step,
    without those after the last request was due. By the app's own counts, ``backlog_before`` and ``backlog_after`` are
    requests it held when the step began and when the last client had left (some of their jobs are complete: FastAPI
    uses a thread twice for a ``def``); ``completed`` counts all jobs in between.
    """

    variant: Variant
    delay_s: float
    timeout_s: float
    seconds: float
    offered_per_s: float
    on_a_fresh_server: bool
    summary: LoadSummary
    response_s: Floats
    answered_per_s: list[float]
    backlog_before: int
    backlog_after: int
    completed: int
    shape: Shape = Shape.CONSTANT
    seed: int = 0

    @property
    def planned(self) -> int:
        """The requests of the step."""
        return self.summary.planned

    @property
    def answered(self) -> int:
        """Requests answered in time."""
        return self.summary.accepted

    @property
    def goodput_per_s(self) -> float:
        """Responses in time, a second, while the load lasted."""
        return sum(self.answered_per_s) / len(self.answered_per_s)

    @property
    def outcomes(self) -> dict[str, int]:
        """All requests by outcome, as the load generator names them; zeros left out."""
        every = {"answered": self.answered, **self.summary.failures, "dropped": self.summary.dropped}
        return {name: count for name, count in every.items() if count}

    @property
    def wasted(self) -> int:
        """Jobs the app completed after their client had left."""
        return max(0, self.completed - self.answered)

    @property
    def wasted_share(self) -> float:
        """``wasted`` as a share of all it completed, 0 to 1."""
        return self.wasted / self.completed if self.completed else 0.0


async def load_steps(
    variant: Variant,
    rates_per_s: Sequence[float],
    *,
    seconds: float,
    delay_s: float,
    timeout_s: float,
    fresh: bool = True,
    shape: Shape = Shape.CONSTANT,
    seed: int = 0,
    on_progress: OnStepProgress | None = None,
) -> list[LoadStep]:
    """Send each of the rates for ``seconds`` to the naive API, and return one step a rate.

    ``delay_s`` is the work, seconds a job; ``timeout_s`` bounds one request; ``shape`` and ``seed`` are those of
    :func:`intended_times`. Each step has a server of its own; with ``fresh=False`` one server takes all, so that the
    backlog of an overload meets the next load. Cancellable. Raises :class:`ConfigurationError` without a checkout or
    for an invalid load, :class:`OverloadDemoError` when the app does not start or does not report its counts.
    """
    if not rates_per_s:
        raise ConfigurationError("no step: give at least one rate")
    if not seconds > 0:
        raise ConfigurationError(f"a step must last longer than 0 seconds, not {seconds:g}")
    if round((lowest := min(rates_per_s)) * seconds) < 1:
        raise ConfigurationError(f"{lowest:g} requests a second for {seconds:g} s is not one request")
    steps: list[LoadStep] = []
    async with contextlib.AsyncExitStack() as servers:
        for number, rate_per_s in enumerate(rates_per_s, start=1):
            if fresh or number == 1:
                await servers.aclose()
                server = await servers.enter_async_context(baseline_server(variant, delay_s))
            plan = LoadPlan(server.url, round(rate_per_s * seconds), rate_per_s, shape, seed, timeout_s)
            before = await server.sample()
            load = await server.send(plan, partial(on_progress, number, rate_per_s) if on_progress else None)
            after = await server.sample()
            answered = np.histogram(load.done_s[load.accepted], np.linspace(0, seconds, BUCKETS + 1))[0]
            step = LoadStep(
                variant,
                delay_s,
                timeout_s,
                seconds,
                offered_per_s=rate_per_s,
                on_a_fresh_server=before["completed"] == before["in_flight"] == 0,
                summary=load.summary(),
                response_s=np.sort(load.response_s[load.accepted]),
                answered_per_s=(answered * BUCKETS / seconds).round(3).tolist(),
                backlog_before=before["in_flight"],
                backlog_after=after["in_flight"],
                completed=after["completed"] - before["completed"],
                shape=shape,
                seed=seed,
            )
            steps.append(step)
    return steps


def breaks_at_per_s(steps: Sequence[LoadStep]) -> float:
    """Return the lowest offered rate at which more than 1 % of the requests got no response; NaN if none did."""
    broken = [one.offered_per_s for one in steps if one.answered < (1 - BROKEN_SHARE) * one.planned]
    return min(broken, default=math.nan)


def equal_recorded(
    here: Environment, variant: Variant, plan: LoadPlan, delay_s: float
) -> tuple[BaselineRun | None, str]:
    """Return the recorded run that :meth:`BaselineRun.matches` ``plan``, and a note on it; or None and why.

    Raises :class:`ConfigurationError` as :func:`recorded_baseline` does.
    """
    for run in recorded_baseline():
        if run.variant == variant and run.matches(plan, delay_s):
            return run, note_on(run, here)
    return None, "no recorded run has equal work, load and timeout"


def note_on(run: BaselineRun, here: Environment) -> str:
    """Return when a run was recorded, and on which machine if its environment is not like ``here``."""
    there = run.summary.environment
    note = f"recorded {run.recorded_at[:10]}, not measured now"
    if not there.is_like(here):
        machine = f"{there.cores} cores, {there.system}, Python {there.python}"
        note += f"; recorded on another machine ({machine}): compare shares of capacity, not rates"
    return note


def require_checkout() -> Path:
    """Return the checkout this package is imported from, with ``experiments`` beside it.

    Raises :class:`ConfigurationError` with the remedy when only a wheel is installed.
    """
    root = Path(overload_demo.__file__).resolve().parents[1]
    if not (root / "experiments" / "naive_sync" / "__main__.py").is_file():
        raise ConfigurationError(
            "the naive baseline needs a checkout: no experiments/naive_sync beside the package. "
            "Clone the repository, and install it with: pip install -e '.[notebooks]'"
        )
    return root
