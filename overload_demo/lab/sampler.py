"""One stream of samples of a running stack: queue depth, drain, memory. It reads the store, not the API under load."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

from overload_demo.errors import StoreError
from overload_demo.queue.results import QueueStats, Results

SAMPLE_EVERY_S = 0.2
MEMORY_EVERY_S = 1.0
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Sample:
    """The queue's numbers at one moment; ``at_mono_s`` is CLOCK_MONOTONIC."""

    at_mono_s: float
    stats: QueueStats


class Sampler:
    """Samples while entered. ``samples`` is in time order; ``peak_mb`` the largest memory seen of each process.

    Memory is the proportional set size (shared pages divided among their users) on Linux, else the resident set;
    ``memory_kind`` says which. ``process_ids`` is asked again at each look, as parts may be restarted.
    """

    def __init__(
        self,
        results: Results,
        process_ids: Callable[[], Mapping[str, int]],
        on_sample: Callable[[Sample], None] | None = None,
    ) -> None:
        self.samples: list[Sample] = []
        self.peak_mb: dict[str, float] = {}
        self.memory_kind = "pss" if hasattr(psutil.Process().memory_full_info(), "pss") else "rss"
        self._results, self._process_ids, self._on_sample = results, process_ids, on_sample
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Sampler":
        self._tasks = [asyncio.create_task(self._sample()), asyncio.create_task(self._watch_memory())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def look(self) -> Sample:
        """Take one sample now. Raises :class:`StoreError`."""
        stats = await self._results.stats()
        sample = Sample(time.monotonic(), stats)
        self.samples.append(sample)
        if self._on_sample:
            self._on_sample(sample)
        return sample

    async def _sample(self) -> None:
        while True:
            with contextlib.suppress(StoreError):  # a store that is being restarted leaves a gap in the curve
                await self.look()
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def _watch_memory(self) -> None:
        while True:
            measured = await asyncio.to_thread(self._measure, dict(self._process_ids()))
            for name, megabytes in measured.items():
                self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), megabytes)
            await asyncio.sleep(MEMORY_EVERY_S)

    def _measure(self, ids: dict[str, int]) -> dict[str, float]:
        """Megabytes by name; the load processes are found among our children and added up."""
        found = {name: [pid] for name, pid in ids.items()}
        found["load generator"] = [
            child.pid for child in psutil.Process().children() if _runs(child, "overload_demo.load.sender")
        ]
        sizes = {name: sum(self._size(pid) for pid in pids) for name, pids in found.items()}
        return {name: round(size / MEGABYTE, 1) for name, size in sizes.items() if size}

    def _size(self, pid: int) -> int:
        with contextlib.suppress(psutil.Error):
            return int(getattr(psutil.Process(pid).memory_full_info(), self.memory_kind))
        return 0


def _runs(process: psutil.Process, module: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return module in process.cmdline()
    return False
