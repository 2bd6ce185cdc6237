"""Measurements of a running stack: queue depth, drain and memory over time, and what a run cost its store.

They read the store and not the API, which is under load.
"""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Self

import psutil

from overload_demo.errors import StoreError
from overload_demo.lab.stack import Stack
from overload_demo.queue.results import QueueStats, Results
from overload_demo.rest.client import Upstash

SAMPLE_EVERY_S = 0.2
MEMORY_EVERY_S = 1.0
MEGABYTE = 1_000_000


class Sampler:
    """Samples the queue while entered: ``samples`` in time order, ``peak_mb`` the peak memory of each process.

    A sample is its time, CLOCK_MONOTONIC, and the queue's numbers; ``on_sample`` is called with each. Memory is the
    proportional set size (shared pages divided among their users) on Linux, else the resident set, as ``memory_kind``
    records. ``process_ids`` is called for each measurement, because parts may be restarted.
    """

    def __init__(
        self,
        results: Results,
        process_ids: Callable[[], Mapping[str, int]],
        on_sample: Callable[[float, QueueStats], None],
    ) -> None:
        self.samples: list[tuple[float, QueueStats]] = []
        self.peak_mb: dict[str, float] = {}
        self.memory_kind = "pss" if hasattr(psutil.Process().memory_full_info(), "pss") else "rss"
        self._results, self._process_ids, self._on_sample = results, process_ids, on_sample
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._sample()), asyncio.create_task(self._measure_memory())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sample(self) -> QueueStats:
        """Take one sample now. Raises :class:`StoreError`."""
        stats = await self._results.stats()
        self.samples.append((time.monotonic(), stats))
        self._on_sample(*self.samples[-1])
        return stats

    async def _sample(self) -> None:
        while True:
            with contextlib.suppress(StoreError):  # a store that restarts leaves a gap in the curve
                await self.sample()
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def _measure_memory(self) -> None:
        while True:
            ids = dict(self._process_ids())
            for name, megabytes in (await asyncio.to_thread(_megabytes, ids, self.memory_kind)).items():
                self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), megabytes)
            await asyncio.sleep(MEMORY_EVERY_S)


def _megabytes(ids: dict[str, int], kind: str) -> dict[str, float]:
    """Return the memory of each process by name, and of all load processes together."""
    sizes = Counter[str]()
    children = [("load generator", child.pid) for child in psutil.Process().children()]
    for name, pid in [*ids.items(), *children]:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if name != "load generator" or "overload_demo.load.sender" in process.cmdline():
                sizes[name] += int(getattr(process.memory_full_info(), kind))
    return {name: round(size / MEGABYTE, 1) for name, size in sizes.items() if size}


async def cost_per_job(stack: Stack, upstash: Upstash, jobs: int, counting: dict[str, int]) -> dict[str, float | None]:
    """Return what each of ``jobs`` has cost a fresh stack until now, as fields of ``SpikeResult``.

    ``counting`` are the process ids it began with, by role. A count is None, rather than too small, once the process
    that kept it was killed.
    """
    now = stack.process_ids()
    replaced = {role for role in counting | now if counting.get(role) != now.get(role)}
    cost: dict[str, float | None] = {"rest_calls_per_job": None, "store_commands_per_job": None}
    if not replaced - {"gateway", "redis"}:
        cost["rest_calls_per_job"] = round(await asyncio.to_thread(stack.rest_calls) / jobs, 4)
    if "redis" not in replaced:
        with contextlib.suppress(StoreError, TypeError):
            stats = await upstash.command("INFO", "commandstats", repeatable=True)
            scripts, commands = count_commands(stats)
            cost["store_scripts_per_job"] = round(scripts / jobs, 4)
            cost["store_commands_per_job"] = round(commands / jobs, 2)
    return cost


def count_commands(commandstats: str) -> tuple[int, int]:
    """Count script calls, and all commands, in the text of ``INFO commandstats``; INFO is sent by observers only."""
    found = re.findall(r"^cmdstat_([^:]+):calls=(\d+)", commandstats, re.MULTILINE)
    run = {name: int(calls) for name, calls in found if name != "info"}
    return run.get("eval", 0) + run.get("evalsha", 0), sum(run.values())
