"""The parent of the load processes: starts them, begins all at one instant, adds up their reports.

It sends nothing itself, so that work on this event loop, such as a notebook's, does not affect a measured time.
"""

import asyncio
import contextlib
import json
import os
import tempfile
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from pydantic import SecretStr

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.load.limits import descriptor_limit, processes_for, source_addresses
from overload_demo.load.measure import LoadResult, ProcessReport, longest_in
from overload_demo.load.plan import LoadPlan
from overload_demo.load.summary import Environment
from overload_demo.process import PYTHON_M, kill_and_wait

HEAD_START_S = 0.1
CONNECT_WITHIN_S = 3.0
READY_WITHIN_S = 60.0
WARM_UP_SHARE = 0.2  # of a calibration: connections open, code paths warm up
MAX_CALIBRATED_PER_S = 30_000
RECENT_S = 1.0


@dataclass(frozen=True)
class LoadProgress:
    """How far a load is, over all processes; ``elapsed_s`` counts from the common start.

    ``response_p99_s`` is of the responses of the last second, rounded up to a bin (12 %); None without one.
    """

    elapsed_s: float
    requests: int
    sent: int = 0
    accepted: int = 0
    failed: int = 0
    dropped: int = 0
    in_flight: int = 0
    response_p99_s: float | None = None

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
) -> LoadResult:
    """Send ``plan`` from child processes and return the outcome of every request.

    ``on_progress`` is called in this event loop, about five times a second and process. ``out_dir`` receives the raw
    arrays (``load.npz``) and the summary (``load.json``). ``api_key``, by default OVERLOAD_API_KEY, is sent with each
    request. A cancellation ends the load processes. Requests that fail are part of the result; raises
    :class:`OverloadDemoError` when a load process itself fails.
    """
    descriptors = descriptor_limit()
    processes = processes_for(plan, descriptors)
    with tempfile.TemporaryDirectory(prefix="overload-load-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            children = [
                await stack.enter_async_context(_load_process(plan, number, processes, sources, Path(folder), api_key))
                for number, sources in enumerate(source_addresses(plan.url, processes))
            ]
            try:
                async with asyncio.timeout(READY_WITHIN_S):
                    await asyncio.gather(*(child.receive() for child in children))
            except TimeoutError:
                raise OverloadDemoError(f"the load processes were not ready within {READY_WITHIN_S:g} s") from None
            start_mono = time.monotonic() + HEAD_START_S
            started_at = (datetime.now(UTC) + timedelta(seconds=HEAD_START_S)).isoformat(timespec="milliseconds")
            totals = _Totals(plan.requests, start_mono, on_progress)
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(child.finish(start_mono, totals)) for child in children]
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        arrays = _merged([child.arrays_path for child in children])
    result = LoadResult(
        plan=plan,
        processes=[task.result() for task in tasks],
        environment=Environment.here(descriptors),
        started_at=started_at.replace("+00:00", "Z"),
        started_mono_s=start_mono,
        **arrays,
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
    result = await run_load(plan, api_key=api_key)
    done_s = result.done_s[result.accepted]
    from_s = WARM_UP_SHARE * duration_s
    counted = int(np.count_nonzero((done_s >= from_s) & (done_s <= duration_s)))
    if not counted:
        raise OverloadDemoError(f"{url} accepted nothing in {duration_s:g} s, so there is no rate to choose")
    return counted / (duration_s - from_s)


async def check_reachable(url: str) -> None:
    """Raise :class:`ConfigurationError` unless ``url`` accepts a connection."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_WITHIN_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except TimeoutError:
        raise ConfigurationError(f"{url} did not accept a connection within {CONNECT_WITHIN_S:g} s") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigurationError(f"{url} cannot be reached: {reason}") from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class _Totals:
    """Adds up the latest counts of each load process and their recent response times, and reports them."""

    def __init__(self, requests: int, start_mono: float, on_progress: OnLoadProgress | None) -> None:
        self._requests, self._start_mono, self._on_progress = requests, start_mono, on_progress
        self._latest: dict[int, dict[str, int]] = {}
        self._recent: deque[tuple[float, Counter[int]]] = deque()

    def add(self, number: int, counts: dict[str, int], answered_in: dict[str, int]) -> None:
        """Add a report; ``answered_in`` counts the responses since the last one, by bin of their time."""
        now = time.monotonic()
        self._latest[number] = counts
        self._recent.append((now, Counter({int(number): count for number, count in answered_in.items()})))
        while self._recent[0][0] < now - RECENT_S:
            self._recent.popleft()
        if self._on_progress is not None:
            totals = {name: sum(latest[name] for latest in self._latest.values()) for name in counts}
            self._on_progress(
                LoadProgress(now - self._start_mono, self._requests, **totals, response_p99_s=self._p99_s())
            )

    def _p99_s(self) -> float | None:
        counts = sum((counted for _, counted in self._recent), Counter[int]())
        bins = sorted(counts)
        up_to = list(accumulate(counts[number] for number in bins))
        return longest_in(bins[bisect_left(up_to, 0.99 * up_to[-1])]) if bins else None


@dataclass
class _LoadProcess:
    """One load process, seen from its parent."""

    number: int
    process: asyncio.subprocess.Process
    arrays_path: Path

    async def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            errors_path = self.arrays_path.with_suffix(".err")
            output = errors_path.read_text(errors="replace").strip().splitlines() or ["no output"]
            raise OverloadDemoError(f"load process {self.number} ended early: {output[-1]}")
        message: dict[str, Any] = json.loads(line)
        return message

    async def finish(self, start_mono: float, totals: _Totals) -> ProcessReport:
        await self.send({"start_at_mono": start_mono})
        while True:
            message = await self.receive()
            if "progress" in message:
                totals.add(self.number, message["progress"], message["answered_in"])
            elif "finished" in message:
                await self.process.wait()
                return ProcessReport(**message["finished"])


@contextlib.asynccontextmanager
async def _load_process(
    plan: LoadPlan, number: int, processes: int, sources: list[str], folder: Path, api_key: SecretStr | None
) -> AsyncIterator[_LoadProcess]:
    """Start a load process and send its order; end it with the block."""
    arrays_path = folder / f"{number}.npz"
    key = {} if api_key is None else {"OVERLOAD_API_KEY": api_key.get_secret_value()}
    with arrays_path.with_suffix(".err").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(*PYTHON_M, "overload_demo.load.sender"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=os.environ | key,
        )
    try:
        child = _LoadProcess(number, process, arrays_path)
        order = {"plan": asdict(plan), "number": number, "processes": processes, "sources": sources}
        with contextlib.suppress(ConnectionError):  # it has ended: receive() raises its last line
            await child.send(order | {"arrays_path": str(arrays_path)})
        yield child
    finally:
        await kill_and_wait(process)


def _merged(paths: list[Path]) -> dict[str, Any]:
    """Merge the arrays of all processes into the order of the plan."""
    parts = []
    for path in paths:
        with np.load(path) as stored:
            parts.append({name: stored[name] for name in stored.files})
    order = np.argsort(np.concatenate([part["index"] for part in parts]), kind="stable")
    names = [name for name in parts[0] if name != "index"]
    return {name: np.concatenate([part[name] for part in parts])[order] for name in names}
