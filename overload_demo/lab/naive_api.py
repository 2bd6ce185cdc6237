"""Run the naive API as a child process and measure it under load.

Its app lives in ``experiments/`` of a checkout and is never imported, so that neither side depends on the other.
"""

import asyncio
import contextlib
import http.client
import json
import math
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from overload_demo.errors import OverloadDemoError
from overload_demo.lab.baseline import BaselineRun, BaselineSeries, Variant, require_checkout
from overload_demo.lab.json_connection import JsonConnection
from overload_demo.load import LoadPlan, Shape, calibrate, run_load
from overload_demo.load.generator import OnLoadProgress
from overload_demo.load.limits import RATE_PER_PROCESS_PER_S, descriptor_limit, socket_cap
from overload_demo.process import kill_and_wait

CALIBRATION_S = 1.5
START_WITHIN_S = 30.0
SAMPLE_EVERY_S = 0.2
SAMPLE_WITHIN_S = 10.0
_PACKAGES = ("fastapi", "httptools", "starlette", "uvicorn", "uvloop")


@dataclass(frozen=True)
class AppSample:
    """The app's own counts at one moment; ``in_flight`` and ``completed`` include clients that have left."""

    at: datetime
    in_flight: int
    completed: int
    slot_capacity_per_s: float | None


class NaiveServer:
    """A running naive API, and the samples taken of it. An app with a blocked event loop yields them late."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.samples: list[AppSample] = []
        self._connection = JsonConnection(url, SAMPLE_WITHIN_S)

    async def sample(self) -> AppSample:
        """Take a sample. Raises :class:`OverloadDemoError` when two requests get no response.

        The second request is for a connection that the server has closed because it was idle.
        """
        for _ in range(2):
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                stats = await asyncio.to_thread(self._connection.get, "/stats")
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

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


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
    conditions: dict[str, Any] = {
        "requests": requests,
        "rate_per_s": rate_per_s,
        "shape": shape,
        "seed": seed,
        "timeout_s": timeout_s,
        "max_duration_s": max_duration_s,
    }
    async with baseline_server(variant, delay_s) as server:
        unloaded_per_s = await calibrate(server.url, CALIBRATION_S, success_status=200)
        before = await server.sample()
        processes = processes_to_hold(requests, rate_per_s, timeout_s)
        plan = LoadPlan(server.url, processes=processes, success_status=200, **conditions)
        sampling = asyncio.create_task(server.sample_until_cancelled())
        try:
            result = await run_load(plan, on_progress=on_progress)
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
    """Run the naive API as a child process for the length of the block.

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
            assert process.stdout is not None
            line = b""
            with contextlib.suppress(TimeoutError):
                line = await asyncio.wait_for(process.stdout.readline(), START_WITHIN_S)
            if not line:
                errors.seek(0)
                output = errors.read().decode(errors="replace").strip().splitlines() or ["no output"]
                raise OverloadDemoError(f"the naive baseline did not start: {output[-1]}")
            with contextlib.closing(NaiveServer(json.loads(line)["url"])) as server:
                yield server
        finally:
            await kill_and_wait(process)


def _server_arguments(variant: Variant, delay_s: float) -> tuple[str, ...]:
    return ("-m", "experiments.naive_sync", "--variant", variant, "--delay", f"{delay_s:g}")


def processes_to_hold(requests: int, rate_per_s: float, timeout_s: float) -> int:
    """Return enough load processes for the sockets open at once if every request times out."""
    sockets = min(requests, rate_per_s * timeout_s)
    by_sockets = math.ceil(sockets / socket_cap(descriptor_limit()))
    return min(requests, max(by_sockets, math.ceil(rate_per_s / RATE_PER_PROCESS_PER_S)))
