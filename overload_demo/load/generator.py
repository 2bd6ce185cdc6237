"""The parent of the load processes: starts them, lets all begin at one instant, adds up what they report.

It sends nothing itself, so a notebook's event loop, or whatever else runs here, cannot falsify a time. Cancelling it
(or Ctrl-C) ends the load processes and raises on.
"""

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from pydantic import SecretStr

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.load.limits import descriptor_limit, processes_for, source_addresses
from overload_demo.load.measure import LoadResult, ProcessReport
from overload_demo.load.plan import LoadPlan
from overload_demo.load.recent import RecentTimes
from overload_demo.load.summary import Environment
from overload_demo.process import PYTHON_M, kill_and_wait

HEAD_START_S = 0.1
CONNECT_WITHIN_S = 3.0
READY_WITHIN_S = 60.0


@dataclass(frozen=True)
class LoadProgress:
    """How far a load is, over all processes; ``elapsed_s`` counts from the common start.

    ``response_p99_s`` is of the answers of the last second, rounded up to a bin (12 %); None without an answer.
    """

    elapsed_s: float
    requests: int
    sent: int = 0
    accepted: int = 0
    failed: int = 0
    dropped: int = 0
    in_flight: int = 0
    response_p99_s: float | None = None


ProgressCallback = Callable[[LoadProgress], None]


async def run_load(
    plan: LoadPlan,
    *,
    out_dir: Path | None = None,
    on_progress: ProgressCallback | None = None,
    api_key: SecretStr | None = None,
) -> LoadResult:
    """Fire ``plan`` from processes of its own and return what came of every request.

    ``on_progress`` is called in this event loop, about five times a second and process. With ``out_dir`` the raw arrays
    are also written to ``load.npz`` and the summary to ``load.json`` there. ``api_key`` is sent with each request, by
    default that of OVERLOAD_API_KEY. Requests that fail are part of the result,
    not errors. Raises :class:`OverloadDemoError` when a load process itself fails.
    """
    descriptors = descriptor_limit()
    processes = processes_for(plan, descriptors)
    with tempfile.TemporaryDirectory(prefix="overload-load-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            children = [
                await stack.enter_async_context(_child(plan, number, processes, sources, Path(folder), api_key))
                for number, sources in enumerate(source_addresses(plan.url, processes))
            ]
            await _all_ready(children)
            start_mono = time.monotonic() + HEAD_START_S
            started_at = (datetime.now(UTC) + timedelta(seconds=HEAD_START_S)).isoformat(timespec="milliseconds")
            watch = _Watch(plan.requests, start_mono, on_progress)
            reports = await _all_finished(children, start_mono, watch)
        arrays = _merged([child.arrays_path for child in children])
    result = LoadResult(
        plan=plan,
        processes=reports,
        environment=Environment.here(descriptors),
        started_at=started_at.replace("+00:00", "Z"),
        started_mono_s=start_mono,
        **arrays,
    )
    if out_dir is not None:
        _write(result, out_dir)
    return result


async def check_reachable(url: str) -> None:
    """Raise :class:`ConfigurationError` with one line unless something accepts connections at ``url``."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_WITHIN_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except TimeoutError:
        raise ConfigurationError(f"{url} did not accept a connection within {CONNECT_WITHIN_S:g} s") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigurationError(f"nothing to fire at: {url} cannot be reached ({reason})") from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class _Watch:
    """Adds up the latest counts of each load process."""

    def __init__(self, requests: int, start_mono: float, on_progress: ProgressCallback | None) -> None:
        self._requests, self._start_mono, self._on_progress = requests, start_mono, on_progress
        self._latest: dict[int, dict[str, int]] = {}
        self._recent = RecentTimes()

    def note(self, number: int, counts: dict[str, int], answered_in: dict[str, int]) -> None:
        self._latest[number] = counts
        self._recent.add(answered_in)
        if self._on_progress is None:
            return
        totals = {name: sum(latest[name] for latest in self._latest.values()) for name in counts}
        elapsed_s = time.monotonic() - self._start_mono
        p99_s = self._recent.p99_s()
        self._on_progress(LoadProgress(elapsed_s=elapsed_s, requests=self._requests, response_p99_s=p99_s, **totals))


@dataclass
class _Child:
    """One load process, as its parent sees it."""

    number: int
    process: asyncio.subprocess.Process
    arrays_path: Path
    errors_path: Path

    async def ready(self) -> None:
        await self._next_message()

    async def finish(self, start_mono: float, watch: _Watch) -> ProcessReport:
        await self.send({"start_at_mono": start_mono})
        while True:
            message = await self._next_message()
            if "progress" in message:
                watch.note(self.number, message["progress"], message["answered_in"])
            elif "finished" in message:
                await self.process.wait()
                return ProcessReport(**message["finished"])

    async def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def _next_message(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            said = self.errors_path.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise OverloadDemoError(f"load process {self.number} ended before its time: {said[-1]}")
        message: dict[str, Any] = json.loads(line)
        return message


@contextlib.asynccontextmanager
async def _child(
    plan: LoadPlan,
    number: int,
    processes: int,
    source_addresses: list[str],
    folder: Path,
    api_key: SecretStr | None,
) -> AsyncIterator[_Child]:
    """A load process that has its order; it is gone when the block ends, however it ends."""
    arrays_path, errors_path = folder / f"{number}.npz", folder / f"{number}.err"
    key = {} if api_key is None else {"OVERLOAD_API_KEY": api_key.get_secret_value()}
    with errors_path.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(*PYTHON_M, "overload_demo.load.sender"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=os.environ | key,
        )
    try:
        child = _Child(number, process, arrays_path, errors_path)
        order = {
            "plan": plan.to_json(),
            "number": number,
            "processes": processes,
            "source_addresses": source_addresses,
            "arrays_path": os.fspath(arrays_path),
        }
        with contextlib.suppress(ConnectionError):  # it is gone already: reading its first line will say so
            await child.send(order)
        yield child
    finally:
        await kill_and_wait(process)  # it holds nothing worth a farewell


async def _all_ready(children: list[_Child]) -> None:
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await asyncio.gather(*(child.ready() for child in children))
    except TimeoutError:
        raise OverloadDemoError(f"the load processes were not ready within {READY_WITHIN_S:g} s") from None


async def _all_finished(children: list[_Child], start_mono: float, watch: _Watch) -> list[ProcessReport]:
    tasks = [asyncio.create_task(child.finish(start_mono, watch)) for child in children]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _merged(paths: list[Path]) -> dict[str, Any]:
    """The arrays of all processes, in the order of the plan."""
    parts = []
    for path in paths:
        with np.load(path) as stored:
            parts.append({name: stored[name] for name in stored.files})
    order = np.argsort(np.concatenate([part["index"] for part in parts]), kind="stable")
    names = [name for name in parts[0] if name != "index"]
    return {name: np.concatenate([part[name] for part in parts])[order] for name in names}


def _write(result: LoadResult, out_dir: Path) -> None:
    out_dir.mkdir(parents=True, exist_ok=True)
    result.save(out_dir / "load.npz")
    document = {"plan": asdict(result.plan), "summary": result.summary().model_dump(mode="json")}
    (out_dir / "load.json").write_text(json.dumps(document, indent=2) + "\n")
