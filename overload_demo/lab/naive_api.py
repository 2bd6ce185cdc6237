"""Run the naive API as a child process and measure it: under one load, or under a rising one in steps.

Its app is in ``experiments/`` of a checkout and is never imported, so that neither side depends on the other.
"""

import asyncio
import contextlib
import http.client
import json
import math
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import BaseModel

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab.baseline import BaselineRun, BaselineSeries, Variant, require_checkout
from overload_demo.lab.json_connection import JsonConnection
from overload_demo.load import LoadPlan, LoadProgress, LoadResult, Shape, calibrate, run_load
from overload_demo.load.generator import RATE_PER_PROCESS_PER_S, OnLoadProgress
from overload_demo.load.load_result import Percentiles, Verdict
from overload_demo.load.machine import Environment, descriptor_limit, socket_cap
from overload_demo.process import kill_and_wait

CALIBRATION_S = 1.5
START_WITHIN_S = 30.0
SAMPLE_EVERY_S = 0.2
SAMPLE_WITHIN_S = 10.0
CCDF_POINTS = 200
BROKEN_SHARE = 0.01
BUCKETS = 10  # in which the course of a step is kept
_PACKAGES = ("fastapi", "httptools", "starlette", "uvicorn", "uvloop")


@dataclass(frozen=True)
class AppSample:
    """The app's own counts at one moment; ``in_flight`` and ``completed`` include clients that have left."""

    at: datetime
    in_flight: int
    completed: int
    slot_capacity_per_s: float | None


@dataclass(frozen=True)
class NaiveServer:
    """A running naive API, and the samples taken of it. An app with a blocked event loop yields them late."""

    url: str
    connection: JsonConnection
    samples: list[AppSample] = field(default_factory=list)

    async def sample(self) -> AppSample:
        """Take a sample. Raises :class:`OverloadDemoError` when two requests get no response."""
        for _ in range(2):  # the server may have closed the connection because it was idle
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                stats = await asyncio.to_thread(self.connection.get, "/stats")
                counts = stats["in_flight"], stats["completed"], stats["slot_capacity_per_s"]
                self.samples.append(AppSample(datetime.now(UTC), *counts))
                return self.samples[-1]
        raise OverloadDemoError("the naive baseline did not answer /stats")

    async def sample_until_cancelled(self) -> None:
        """Take five samples a second; skip those without a response."""
        while True:
            with contextlib.suppress(OverloadDemoError):
                await self.sample()
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def send(
        self, on_progress: OnLoadProgress | None, *, requests: int, rate_per_s: float, timeout_s: float, **plan: Any
    ) -> LoadResult:
        """Send a load from enough processes for the sockets that are open at once if every request times out."""
        by_sockets = min(requests, rate_per_s * timeout_s) / socket_cap(descriptor_limit())
        processes = min(requests, math.ceil(max(by_sockets, rate_per_s / RATE_PER_PROCESS_PER_S)))
        plan |= {"requests": requests, "rate_per_s": rate_per_s, "timeout_s": timeout_s, "success_status": 200}
        return await run_load(LoadPlan(self.url, processes=processes, **plan), on_progress=on_progress)


async def run_baseline(
    variant: Variant,
    *,
    requests: int,
    rate_per_s: float,
    shape: Shape,
    delay_s: float,
    timeout_s: float = 10.0,
    max_duration_s: float = 60.0,
    seed: int = 0,
    on_progress: OnLoadProgress | None = None,
) -> BaselineRun:
    """Start the naive API, send one load to it, and stop it.

    ``delay_s`` is the work, seconds a job; ``timeout_s`` bounds one request; sending ends after ``max_duration_s``.
    Cancellable. Raises :class:`ConfigurationError` without a checkout or for an invalid load,
    :class:`OverloadDemoError` when the app does not start.
    """
    conditions: dict[str, Any] = {"requests": requests, "rate_per_s": rate_per_s, "shape": shape, "seed": seed}
    conditions |= {"timeout_s": timeout_s, "max_duration_s": max_duration_s}
    async with baseline_server(variant, delay_s) as server:
        unloaded_per_s = await calibrate(server.url, CALIBRATION_S, success_status=200)
        before = await server.sample()
        sampling = asyncio.create_task(server.sample_until_cancelled())
        try:
            result = await server.send(on_progress, **conditions)
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
    started_at = datetime.fromisoformat(result.started_at)
    during = [sample for sample in server.samples if sample.at >= started_at]
    return BaselineRun(
        variant=variant,
        delay_s=delay_s,
        **conditions,
        recorded_at=result.started_at,
        server_command=" ".join(("python", *_server_arguments(variant, delay_s))),
        server_versions={name: version(name) for name in _PACKAGES},
        slot_capacity_per_s=before.slot_capacity_per_s,
        slot_under_load_per_s=server.samples[-1].slot_capacity_per_s,
        unloaded_per_s=round(unloaded_per_s, 1),
        summary=result.summary(),
        series=BaselineSeries(
            **result.series().model_dump(),
            sampled_at_s=[round((sample.at - started_at).total_seconds(), 2) for sample in during],
            app_in_flight=[sample.in_flight for sample in during],
            app_completed=[sample.completed - before.completed for sample in during],
        ),
    )


@contextlib.asynccontextmanager
async def baseline_server(variant: Variant, delay_s: float) -> AsyncIterator[NaiveServer]:
    """Run the naive API as a child process for the length of the block. Raises as :func:`run_baseline` does."""
    root = require_checkout()
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(*_server_arguments(variant, delay_s), "--port", "0", "--parent-pipe"),
            cwd=root,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
        try:
            assert process.stdout is not None
            line = b""
            with contextlib.suppress(TimeoutError):
                line = await asyncio.wait_for(process.stdout.readline(), START_WITHIN_S)
            if not line:
                errors.seek(0)
                output = errors.read().decode(errors="replace").strip().splitlines() or ["no output"]
                raise OverloadDemoError(f"the naive baseline did not start: {output[-1]}")
            url = json.loads(line)["url"]
            with contextlib.closing(JsonConnection(url, SAMPLE_WITHIN_S)) as connection:
                yield NaiveServer(url, connection)
        finally:
            await kill_and_wait(process)


def _server_arguments(variant: Variant, delay_s: float) -> tuple[str, ...]:
    return ("-m", "experiments.naive_sync", "--variant", variant, "--delay", f"{delay_s:g}")


class LoadStep(BaseModel, frozen=True):
    """One step: requests at one rate, every one accounted for.

    ``planned = answered + sum(failures) + dropped`` (dropped: the load generator had no socket left).
    ``answered_meanwhile`` excludes responses after the last request was due. ``times_s`` and ``unanswered`` are the
    CCDF: the share of all requests, failed ones too, without a response after that time.

    By the app's own counts, ``backlog_before`` and ``backlog_after`` are requests it held when the step began and when
    the last client had left (some of their jobs are complete: FastAPI uses a thread twice for a ``def``);
    ``completed`` counts all jobs in between.
    """

    variant: Variant
    delay_s: float
    timeout_s: float
    seconds: float
    offered_per_s: float
    on_a_fresh_server: bool
    planned: int
    answered: int
    answered_meanwhile: int
    failures: dict[str, int]
    dropped: int
    response_time: Percentiles | None
    times_s: list[float]
    unanswered: list[float]
    bucket_s: float
    bucket_answered_per_s: list[float]
    backlog_before: int
    backlog_after: int
    completed: int
    verdict: Verdict
    reason: str
    environment: Environment

    @property
    def goodput_per_s(self) -> float:
        """Responses in time, a second, while the load lasted."""
        return self.answered_meanwhile / self.seconds

    @property
    def outcomes(self) -> dict[str, int]:
        """All requests by outcome, as the load generator names them; zeros left out."""
        every = {"answered": self.answered, **self.failures, "dropped": self.dropped}
        return {name: count for name, count in every.items() if count}

    @property
    def wasted(self) -> int:
        """Jobs the app completed after their client had left."""
        return max(0, self.completed - self.answered)

    @property
    def wasted_share(self) -> float:
        """``wasted`` as a share of all it completed, 0 to 1."""
        return self.wasted / self.completed if self.completed else 0.0


@dataclass(frozen=True)
class StepProgress:
    """How far the steps are: the ``number`` of the present one, from 1 to ``steps``, and its load."""

    number: int
    steps: int
    offered_per_s: float
    load: LoadProgress


OnStepProgress = Callable[[StepProgress], None]


async def load_steps(
    variant: Variant,
    rates_per_s: Sequence[float],
    *,
    seconds: float,
    delay_s: float,
    timeout_s: float,
    fresh: bool = True,
    on_progress: OnStepProgress | None = None,
) -> list[LoadStep]:
    """Send each of the rates for ``seconds`` to the naive API, and return one step a rate.

    ``delay_s`` is the work, seconds a job; ``timeout_s`` bounds one request. Each step has a server of its own; with
    ``fresh=False`` one server takes all, so that the backlog of an overload meets the next load. Cancellable. Raises
    :class:`ConfigurationError` without a checkout or for an invalid load, :class:`OverloadDemoError` when the app does
    not start or does not report its counts.
    """
    if not rates_per_s:
        raise ConfigurationError("no step: give at least one rate")
    if not seconds > 0:
        raise ConfigurationError(f"a step must last longer than 0 seconds, not {seconds:g}")
    if round((lowest := min(rates_per_s)) * seconds) < 1:
        raise ConfigurationError(f"{lowest:g} requests a second for {seconds:g} s is not one request")
    conditions = {"variant": variant, "delay_s": delay_s, "timeout_s": timeout_s, "seconds": seconds}
    steps: list[LoadStep] = []
    async with contextlib.AsyncExitStack() as servers:
        for number, rate_per_s in enumerate(rates_per_s, start=1):
            if fresh or number == 1:
                await servers.aclose()
                server = await servers.enter_async_context(baseline_server(variant, delay_s))

            def report(load: LoadProgress, number: int = number, rate_per_s: float = rate_per_s) -> None:
                if on_progress is not None:
                    on_progress(StepProgress(number, len(rates_per_s), rate_per_s, load))

            steps.append(await _step(server, rate_per_s, conditions, report))
    return steps


def breaks_at_per_s(steps: Sequence[LoadStep]) -> float:
    """Return the lowest offered rate at which more than 1 % of the requests got no response; NaN if none did."""
    broken = [one.offered_per_s for one in steps if one.answered < (1 - BROKEN_SHARE) * one.planned]
    return min(broken, default=math.nan)


async def _step(
    server: NaiveServer, rate_per_s: float, conditions: dict[str, Any], on_progress: OnLoadProgress
) -> LoadStep:
    timeout_s, seconds = conditions["timeout_s"], conditions["seconds"]
    plan = {"requests": round(rate_per_s * seconds), "rate_per_s": rate_per_s, "timeout_s": timeout_s}
    before = await server.sample()
    load = await server.send(on_progress, shape=Shape.CONSTANT, **plan)
    after = await server.sample()
    summary = load.summary()
    shared = ("planned", "failures", "dropped", "response_time", "verdict", "reason", "environment")
    return LoadStep(
        **conditions,
        offered_per_s=rate_per_s,
        on_a_fresh_server=before.completed == 0 and before.in_flight == 0,
        answered=summary.accepted,
        backlog_before=before.in_flight,
        backlog_after=after.in_flight,
        completed=after.completed - before.completed,
        **{name: getattr(summary, name) for name in shared},
        **_course(load, seconds),
    )


def _course(load: LoadResult, seconds: float) -> dict[str, Any]:
    """Compute the CCDF over all requests, and the responses over time."""
    answered_s = np.sort(load.response_s[load.accepted])
    ranks = np.unique(np.linspace(0, answered_s.size - 1, min(CCDF_POINTS, answered_s.size)).astype(int)).tolist()
    bucket_s = seconds / BUCKETS
    per_bucket = np.histogram(load.done_s[load.accepted], np.linspace(0, seconds, BUCKETS + 1))[0]
    return {
        "answered_meanwhile": int(per_bucket.sum()),
        "times_s": [round(float(answered_s[rank]), 6) for rank in ranks],
        "unanswered": [round(1 - (rank + 1) / load.kind.size, 6) for rank in ranks],
        "bucket_s": bucket_s,
        "bucket_answered_per_s": [round(float(count / bucket_s), 3) for count in per_bucket],
    }
