"""The parent of the load processes: starts them, begins all at one instant, adds up their reports.

It sends nothing itself, so that work on this event loop, such as a notebook's, does not affect a measured time.
"""

import asyncio
import json
import math
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.load.load_result import LoadResult, ProcessReport
from overload_demo.load.machine import Environment, port_cap, socket_cap
from overload_demo.load.outcomes import RAW, Attempts
from overload_demo.load.plan import MAX_PROCESSES, Floats, LoadPlan, RetryBudget, Shape
from overload_demo.process import PYTHON_M, descriptor_limit, kill_and_wait

HEAD_START_S = 0.1
READY_WITHIN_S = 60.0
WARM_UP_SHARE = 0.2  # of a calibration or a turn: connections open, code paths warm up
MAX_CALIBRATED_PER_S = 30_000
RATE_PER_PROCESS_PER_S = 5000.0  # half of what one process was measured to send
RECENT_S = 1.0

# Response times of a load under way are counted in bins 12 % wide, from 0.1 ms to a day, which processes can add up.
EDGES_S: Floats = np.append(0.0, np.geomspace(1e-4, 1e5, 181))


@dataclass(frozen=True)
class LoadProgress:
    """How far a load is, over all processes; ``elapsed_s`` counts from the common start.

    ``attempts`` are requests sent, repeats included. ``response_p99_s`` is of the responses of the last second, rounded
    up to a bin (12 %); None without one.
    """

    elapsed_s: float
    requests: int
    sent: int = 0
    accepted: int = 0
    dropped: int = 0
    in_flight: int = 0
    attempts: int = 0
    response_p99_s: float | None = None

    @property
    def failed(self) -> int:
        """Requests that ended without being accepted."""
        return self.sent - self.accepted - self.in_flight

    @property
    def errors(self) -> int:
        """Requests that failed or were never sent."""
        return self.failed + self.dropped


OnLoadProgress = Callable[[LoadProgress], None]


async def run_load(
    plan: LoadPlan,
    *,
    out_dir: Path | None = None,
    on_progress: OnLoadProgress | None = None,
    api_key: SecretStr | None = None,
    budget: RetryBudget | None = None,
) -> LoadResult:
    """Send ``plan`` from child processes and return the outcome of every request.

    ``on_progress`` is called in this event loop, about five times a second and process. ``out_dir`` receives the raw
    arrays (``load.npz``) and the summary (``load.json``). ``api_key``, by default OVERLOAD_API_KEY, is sent with each
    request. ``budget`` replaces that of ``plan.retry``: as an object of this process it is called here, so the load is
    sent from this event loop, without child processes. A cancellation ends the load. Requests that fail are part of the
    result; raises :class:`OverloadDemoError` when a load process itself fails.
    """
    if budget is not None and plan.retry is None:
        raise ConfigurationError("a retry budget needs a plan with a retry policy")
    processes = 1 if budget is not None else processes_for(plan, descriptor_limit())
    totals = _Totals(plan.requests, on_progress or (lambda _: None))
    with tempfile.TemporaryDirectory(prefix="overload-load-") as folder:
        paths = [Path(folder) / f"{number}.npz" for number in range(processes)]
        if budget is None:
            await _in_processes(plan, paths, api_key, totals)
        else:
            await _in_this_process(plan, paths[0], api_key, budget, totals)
        started_at = datetime.fromtimestamp(time.time() + totals.start_mono - time.monotonic(), UTC)
        result = LoadResult(
            plan=plan,
            environment=Environment.here(),
            started_at=started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            started_mono_s=totals.start_mono,
            **_merged(paths),
        )
    if out_dir is not None:
        result.write(out_dir)
    return result


async def calibrate(
    url: str,
    duration_s: float = 3.0,
    connections: int = 64,
    *,
    success_status: int = 202,
    api_key: SecretStr | None = None,
) -> float:
    """Return the accepted requests a second of ``connections`` clients in a closed loop over ``duration_s`` seconds.

    The first fifth is not counted. The requests are real: their jobs are added to the queue.
    Raises :class:`OverloadDemoError` when nothing was accepted.
    """
    plan = LoadPlan(
        url,
        requests=int(MAX_CALIBRATED_PER_S * duration_s),
        connections=connections,
        max_duration_s=duration_s,
        success_status=success_status,
    )
    if not (per_s := steady_per_s(await run_load(plan, api_key=api_key))):
        raise OverloadDemoError(f"{url} accepted nothing in {duration_s:g} s, so there is no rate to choose")
    return per_s


def steady_per_s(result: LoadResult) -> float:
    """Return the accepted requests a second of a load with a ``max_duration_s``, its first fifth not counted."""
    done_s, to_s = result.done_s[result.accepted], result.plan.max_duration_s or 0.0
    from_s = WARM_UP_SHARE * to_s
    return int(np.count_nonzero((done_s >= from_s) & (done_s <= to_s))) / (to_s - from_s)


def processes_for(plan: LoadPlan, descriptors: int) -> int:
    """Choose the number of load processes: enough for the sockets open at once and for the rate.

    An open loop may come to hold ``rate_per_s * timeout_s`` sockets when a server stalls. This is not provided for:
    requests beyond the cap are dropped and counted; set ``processes`` where it matters.
    Raises :class:`ConfigurationError` when the given processes cannot hold the given connections.
    """
    cap = min(socket_cap(descriptors), port_cap(1))
    if plan.processes is not None:
        if (plan.connections or 0) > plan.processes * cap:
            raise ConfigurationError(f"{plan.processes} processes hold at most {plan.processes * cap:,} connections")
        return min(plan.processes, plan.requests, plan.connections or plan.processes)
    wanted = plan.rate_per_s / RATE_PER_PROCESS_PER_S
    if plan.is_closed or plan.shape is Shape.AT_ONCE:
        wanted = (plan.connections or plan.requests) / cap
    return max(1, min(math.ceil(wanted), MAX_PROCESSES, plan.requests))


class _Totals:
    """Adds up the latest counts of each load process and their recent response times, and reports them."""

    def __init__(self, requests: int, on_progress: OnLoadProgress) -> None:
        self.start_mono, self._requests, self._on_progress = math.inf, requests, on_progress
        self._latest: dict[int, dict[str, int]] = {}
        self._recent: deque[tuple[float, list[int]]] = deque()

    def add(self, number: int, counts: dict[str, int], answered_in: list[int]) -> None:
        """Add a report; ``answered_in`` counts the responses since the last one, by bin of their time."""
        elapsed_s = time.monotonic() - self.start_mono
        self._latest[number] = counts
        self._recent.append((elapsed_s, answered_in))
        while self._recent[0][0] < elapsed_s - RECENT_S:
            self._recent.popleft()
        totals = {name: sum(latest[name] for latest in self._latest.values()) for name in counts}
        self._on_progress(LoadProgress(elapsed_s, self._requests, **totals, response_p99_s=self._p99_s()))

    def _p99_s(self) -> float | None:
        within = np.cumsum(np.sum([bins for _, bins in self._recent], axis=0))
        slowest = int(np.searchsorted(within, math.ceil(0.99 * within[-1])))
        return float(EDGES_S[slowest + 1]) if within[-1] else None  # the upper edge of its bin


async def _in_processes(plan: LoadPlan, paths: Sequence[Path], api_key: SecretStr | None, totals: _Totals) -> None:
    """Run a load process for each of ``paths``, all with one start; return when each has written its records there."""
    barrier = asyncio.Barrier(len(paths) + 1)
    try:
        async with asyncio.TaskGroup() as group:
            for number, path in enumerate(paths):
                order = {"plan": asdict(plan), "number": number, "processes": len(paths), "records_path": str(path)}
                group.create_task(_load_process(order, api_key, barrier, totals))
            async with asyncio.timeout(READY_WITHIN_S):
                await barrier.wait()  # all are ready
            totals.start_mono = time.monotonic() + HEAD_START_S
            await barrier.wait()  # all know the start
    except ExceptionGroup as errors:
        if isinstance(errors.exceptions[0], TimeoutError):
            raise OverloadDemoError(f"the load processes were not ready within {READY_WITHIN_S:g} s") from None
        raise errors.exceptions[0] from None


async def _in_this_process(
    plan: LoadPlan, path: Path, api_key: SecretStr | None, budget: RetryBudget, totals: _Totals
) -> None:
    """Send the whole load from this event loop. An error of ``budget`` ends it and is raised as it is."""
    from overload_demo.load.sender import open_sender  # loads aiohttp

    api_key = load_settings().overload_api_key if api_key is None else api_key
    async with open_sender(plan, 0, 1, api_key, budget) as sender:
        totals.start_mono = time.monotonic() + HEAD_START_S
        try:
            await sender.run(totals.start_mono, lambda progress: totals.add(0, **progress))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
    np.savez(path, **sender.arrays())
    totals.add(0, **sender.progress())


async def _load_process(
    order: dict[str, Any], api_key: SecretStr | None, barrier: asyncio.Barrier, totals: _Totals
) -> None:
    """Run one load process from its order to its records, and pass on its reports; end it in any case."""
    key = {} if api_key is None else {"OVERLOAD_API_KEY": api_key.get_secret_value()}
    errors_path = Path(order["records_path"]).with_suffix(".err")
    with errors_path.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(*PYTHON_M, "overload_demo.load.sender"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=os.environ | key,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        is_ready = await process.stdout.readline()
        if is_ready:
            await barrier.wait()
            await barrier.wait()
            process.stdin.write(json.dumps({"start_at_mono": totals.start_mono}).encode() + b"\n")
            async for line in process.stdout:
                totals.add(order["number"], **json.loads(line))
        if await process.wait() != 0 or not is_ready:
            output = errors_path.read_text(errors="replace").strip().splitlines() or ["no output"]
            raise OverloadDemoError(f"load process {order['number']} ended early: {output[-1]}")
    finally:
        await kill_and_wait(process)


def _merged(paths: list[Path]) -> dict[str, Any]:
    """Merge the records of all processes into the order of the plan; collect their reports on themselves."""
    stored = [dict(np.load(path)) for path in paths]
    records = np.concatenate([one["records"] for one in stored])
    records = records[np.argsort(records["index"], kind="stable")]
    attempts = None
    if "attempts" in stored[0]:
        counts = np.sum([one["retries"] for one in stored], axis=0)
        attempts = Attempts.of(np.concatenate([one["attempts"] for one in stored]), counts)
    reports = [ProcessReport(cpu_share, int(peak)) for cpu_share, peak in (one["report"].tolist() for one in stored)]
    return {"processes": reports, "attempts": attempts} | {name: records[name] for name in RAW}
