"""The naive baseline as seen from the lab: run it live, or read runs recorded earlier.

The baseline app lives in ``experiments/`` of a checkout and is started as a child process, never imported: it must not
know us, nor we it. What an API without a queue has for a queue is its requests in flight, and for a drain rate its
answers a second; so those are what a :class:`BaselineRun` holds over time.
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
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

import overload_demo
from overload_demo.children import end
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab.app_stats import AppMonitor, AppSample
from overload_demo.load import LoadPlan, LoadResult, LoadSummary, Shape, calibrate, run_load
from overload_demo.load.generator import ProgressCallback
from overload_demo.load.limits import RATE_PER_PROCESS_PER_S, descriptor_limit, socket_cap
from overload_demo.load.summary import Floats

Variant = Literal["async-blocking", "def-slot", "def-no-slot"]
VARIANTS: tuple[Variant, ...] = ("async-blocking", "def-slot", "def-no-slot")

CALIBRATION_S = 1.5
START_WITHIN_S = 30.0

_PACKAGES = ("fastapi", "httptools", "starlette", "uvicorn", "uvloop")


class BaselineSeries(BaseModel):
    """A run over time. The first group has one value a second, as the clients saw it; None where none was answered.

    ``in_flight`` counts requests sent and not ended, at the end of that second. The last three are samples the app gave
    of itself at ``sampled_at_s``: a blocked app gives fewer. ``app_in_flight`` still holds requests whose clients have
    left, and ``app_completed`` (a running total) work done for nobody.
    """

    model_config = ConfigDict(frozen=True)

    start_s: list[float]
    offered_per_s: list[float]
    accepted_per_s: list[float]
    failed_per_s: list[float]
    in_flight: list[float]
    response_p50_s: list[float | None]
    response_p99_s: list[float | None]
    sampled_at_s: list[float]
    app_in_flight: list[int]
    app_completed: list[int]


class BaselineRun(BaseModel):
    """One load on one variant: the conditions, every request accounted for, and the course of it.

    ``slot_capacity_per_s`` is what the slot allows by its measured hold time, jobs a second (None without a slot), and
    ``unloaded_per_s`` what the whole app answered; both from a closed loop of 64 clients before the load.
    ``slot_under_load_per_s`` is the slot's capacity over the whole run: it sinks when taking requests in leaves a
    thread that holds the slot waiting for Python's lock.
    ``summary.not_fired`` requests were not sent because the run reached ``max_duration_s``.
    """

    model_config = ConfigDict(frozen=True)

    variant: Variant
    requests: int
    rate_per_s: float
    shape: Shape
    seed: int
    delay_s: float
    timeout_s: float
    max_duration_s: float
    recorded_at: str
    server_command: str
    server_versions: dict[str, str]
    slot_capacity_per_s: float | None
    slot_under_load_per_s: float | None
    unloaded_per_s: float
    summary: LoadSummary
    series: BaselineSeries

    @property
    def capacity_per_s(self) -> float:
        """What the app can complete at its best, jobs a second: the slot's capacity, or what it did without one."""
        return self.slot_capacity_per_s or self.unloaded_per_s

    def matches(self, *, delay_s: float, rate_per_s: float, shape: str, timeout_s: float, requests: int) -> bool:
        """Whether this run may be laid over another one: only at equal work, load and time-out."""
        mine = (self.delay_s, self.rate_per_s, self.timeout_s)
        theirs = (delay_s, rate_per_s, timeout_s)
        equal = all(math.isclose(one, other) for one, other in zip(mine, theirs, strict=True))
        return equal and self.shape == shape and self.requests == requests


class BaselineRecording(BaseModel):
    """A file of recorded runs; ``command`` is the line that makes it again."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    command: str
    runs: list[BaselineRun]


def recorded_baseline(results_dir: Path | None = None) -> list[BaselineRun]:
    """Return every recorded run in ``results_dir`` (default: the checkout's); empty where there is none.

    Raises :class:`ConfigurationError` when a file is not such a recording.
    """
    if results_dir is None:
        root = checkout_root()
        results_dir = root / "experiments" / "results" if root else Path("no-checkout")
    runs: list[BaselineRun] = []
    for path in sorted(results_dir.glob("naive_*.json")):
        try:
            runs += BaselineRecording.model_validate_json(path.read_bytes()).runs
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigurationError(f"{path} is not a recorded baseline: {where}: {first['msg']}") from None
    return runs


def checkout_root() -> Path | None:
    """Return the checkout this package is imported from, where ``experiments`` lies beside it; None without one."""
    root = Path(overload_demo.__file__).resolve().parents[1]
    return root if (root / "experiments" / "naive_sync" / "__main__.py").is_file() else None


def require_checkout() -> Path:
    """Return the checkout. Raises :class:`ConfigurationError`, which says what to do, when there is a wheel only."""
    root = checkout_root()
    if root is None:
        raise ConfigurationError(
            "the naive baseline needs a checkout: no experiments/naive_sync beside the package. "
            "Clone the repository, and install it with: pip install -e '.[notebooks]'"
        )
    return root


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
    on_progress: ProgressCallback | None = None,
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
            await end(process)


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
    series, started_at = result.series(), datetime.fromisoformat(result.started_at)
    names = ("start_s", "offered_per_s", "accepted_per_s", "failed_per_s", "in_flight")
    during = [sample for sample in samples if sample.at >= started_at]
    return BaselineSeries(
        **{name: _numbers(getattr(series, name)) for name in names},
        response_p50_s=_numbers(series.response_p50_s),
        response_p99_s=_numbers(series.response_p99_s),
        sampled_at_s=[round((sample.at - started_at).total_seconds(), 2) for sample in during],
        app_in_flight=[sample.in_flight for sample in during],
        app_completed=[sample.completed - samples[0].completed for sample in during],
    )


def _numbers(values: Floats) -> list[Any]:
    """An array as JSON numbers, rounded for a small file; NaN is None."""
    return [None if math.isnan(value) else round(value, 4) for value in values.tolist()]
