"""The naive baseline run live, as a child process.

Its app lives in ``experiments/`` of a checkout and is never imported: it must not know us, nor we it.
"""

import asyncio
import contextlib
import json
import math
import sys
import tempfile
from collections.abc import AsyncIterator
from datetime import datetime
from importlib.metadata import version

from overload_demo.errors import OverloadDemoError
from overload_demo.lab.app_stats import AppMonitor, AppSample
from overload_demo.lab.baseline import BaselineRun, BaselineSeries, Variant, require_checkout
from overload_demo.load import LoadPlan, LoadResult, Shape, calibrate, run_load
from overload_demo.load.generator import OnLoadProgress
from overload_demo.load.limits import RATE_PER_PROCESS_PER_S, descriptor_limit, socket_cap
from overload_demo.process import kill_and_wait

CALIBRATION_S = 1.5
START_WITHIN_S = 30.0

_PACKAGES = ("fastapi", "httptools", "starlette", "uvicorn", "uvloop")


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
    """Start the baseline as a child, fire one load at it, and return what came of it; the child is gone afterwards.

    ``delay_s`` is the work, seconds a job; ``timeout_s`` how long a client waits; firing stops after
    ``max_duration_s``, so all is over ``timeout_s`` later. Cancellable. Raises :class:`ConfigurationError` without a
    checkout or for a mistake in the load, :class:`OverloadDemoError` when the app does not start.
    """
    async with baseline_server(variant, delay_s) as url:
        unloaded_per_s = await calibrate(url, CALIBRATION_S, success_status=200)
        monitor = AppMonitor(url)
        await monitor.sample()
        if not monitor.samples:
            raise OverloadDemoError("the naive baseline did not answer /stats before any load")
        plan = LoadPlan(
            url,
            requests=requests,
            rate_per_s=rate_per_s,
            shape=shape,
            seed=seed,
            timeout_s=timeout_s,
            processes=processes_to_hold(requests, rate_per_s, timeout_s),
            success_status=200,
            max_duration_s=max_duration_s,
        )
        sampling = asyncio.create_task(monitor.sample_for_ever())
        try:
            result = await run_load(plan, on_progress=on_progress)
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
            monitor.close()
    return BaselineRun(
        variant=variant,
        requests=requests,
        rate_per_s=rate_per_s,
        shape=shape,
        seed=seed,
        delay_s=delay_s,
        timeout_s=timeout_s,
        max_duration_s=max_duration_s,
        recorded_at=result.started_at,
        server_command=" ".join(("python", *_server_arguments(variant, delay_s))),
        server_versions={name: version(name) for name in _PACKAGES},
        slot_capacity_per_s=monitor.samples[0].slot_capacity_per_s,
        slot_under_load_per_s=monitor.samples[-1].slot_capacity_per_s,
        unloaded_per_s=round(unloaded_per_s, 1),
        summary=result.summary(),
        series=_series(result, monitor.samples),
    )


@contextlib.asynccontextmanager
async def baseline_server(variant: Variant, delay_s: float) -> AsyncIterator[str]:
    """Run the baseline app as a child for the length of the block; yields its base URL.

    Raises :class:`ConfigurationError` without a checkout, :class:`OverloadDemoError` when the app does not start.
    """
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
            line = await _first_line(process)
            if not line:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
                raise OverloadDemoError(f"the naive baseline did not start: {said[-1]}")
            yield json.loads(line)["url"]
        finally:
            await kill_and_wait(process)


async def _first_line(process: asyncio.subprocess.Process) -> bytes:
    """What a child says first; empty when it ends or takes too long."""
    assert process.stdout is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_WITHIN_S):
            return await process.stdout.readline()
    return b""


def _server_arguments(variant: Variant, delay_s: float) -> tuple[str, ...]:
    return ("-m", "experiments.naive_sync", "--variant", variant, "--delay", f"{delay_s:g}")


def processes_to_hold(requests: int, rate_per_s: float, timeout_s: float) -> int:
    """Enough load processes for the sockets open at once when nothing is answered before the time-out."""
    sockets = min(requests, rate_per_s * timeout_s)
    by_sockets = math.ceil(sockets / socket_cap(descriptor_limit()))
    return min(requests, max(by_sockets, math.ceil(rate_per_s / RATE_PER_PROCESS_PER_S)))


def _series(result: LoadResult, samples: list[AppSample]) -> BaselineSeries:
    started_at = datetime.fromisoformat(result.started_at)
    during = [sample for sample in samples if sample.at >= started_at]
    return BaselineSeries(
        **result.series().model_dump(),
        sampled_at_s=[round((sample.at - started_at).total_seconds(), 2) for sample in during],
        app_in_flight=[sample.in_flight for sample in during],
        app_completed=[sample.completed - samples[0].completed for sample in during],
    )
