"""Run a spike: send it, sample the queue, wait until it is empty, account for every job.

Samples are read from the store and not from the API, which is under load.
"""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from overload_demo.errors import ConfigurationError, OverloadDemoError, StoreError, StoreUnavailableError
from overload_demo.lab import result as stored
from overload_demo.lab import spike_plan
from overload_demo.lab.job_log import read_effects, read_stored, reconcile
from overload_demo.lab.naive_api import equal_recorded, run_baseline
from overload_demo.lab.preflight import filesystem_of
from overload_demo.lab.report import cost_per_job
from overload_demo.lab.result import BaselineRun, Conditions, Reconciliation, SpikeResult, SpikeSeries, Variant
from overload_demo.lab.spike_plan import BASELINE_TIMEOUT_S, OnProgress, SpikePlan, SpikeProgress, SpikeStage
from overload_demo.lab.stack import Stack
from overload_demo.load import LoadPlan, LoadProgress, LoadResult, RetryBudget, calibrate, run_load
from overload_demo.load.machine import Environment
from overload_demo.queue.results import QueueStats
from overload_demo.queue.shards import Reader, results_of
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import opened
from overload_demo.work import utc_now

RATE_SHARE_OF_CALIBRATION = 0.6
MOST_SIZED_PER_S = 3_000.0  # 2 cores: at 4,170/s the load generator was the limit, at 2,770/s it was not (measured)
SAMPLE_EVERY_S = 0.2
MEMORY_EVERY_S = 1.0
STUCK_AFTER_S = 60.0
BASELINE_VARIANT: Variant = "def-slot"
_PACKAGES = ("overload-demo", "fastapi", "uvicorn", "httpx", "pydantic", "aiohttp", "hiredis")


async def run_spike(
    stack: Stack,
    plan: SpikePlan,
    on_progress: OnProgress | None = None,
    *,
    live: OnProgress | None = None,
    out_dir: Path | None = None,
    budget: RetryBudget | None = None,
) -> SpikeResult:
    """Run ``plan`` on ``stack`` (restarted if it was used before or stopped) and account for every request.

    ``live`` receives the same reports; because it uses CPU time, the result records ``dashboard: on``. Writes
    ``result.json`` and the raw arrays into ``out_dir``, by default the stack's ``run_folder``. ``budget`` replaces that
    of ``plan.retry``, as in :func:`run_load`. A cancellation ends the
    load and keeps the stack; during the naive part it ends only that part, and the result is returned. Raises
    :class:`OverloadDemoError` when the experiment itself fails; a spike that was not absorbed is a result.
    """
    if not stack.is_running:
        await stack.fresh()
    if close := getattr(live, "close", None):
        stack.on_stop.append(close)
    return await _Spike(stack, plan, on_progress, live, budget).run(out_dir)


class _Spike:
    """One run; its methods are the steps, in order.

    ``samples`` are the times, CLOCK_MONOTONIC, and the numbers of the queue; ``peak_mb`` is the peak memory of each
    process: the proportional set size (shared pages divided among their users) on Linux, else the resident set, as
    ``memory_kind`` records.
    """

    def __init__(
        self,
        stack: Stack,
        plan: SpikePlan,
        on_progress: OnProgress | None,
        live: OnProgress | None,
        budget: RetryBudget | None,
    ) -> None:
        self.stack, self.plan, self._dashboard, self._budget = stack, plan, "on" if live else "off", budget
        self.samples: list[tuple[float, QueueStats]] = []
        self.peak_mb: dict[str, float] = {}
        self.memory_kind = "pss" if hasattr(psutil.Process().memory_full_info(), "pss") else "rss"
        self._listeners = [listener for listener in (on_progress, live) if listener]
        self._load: LoadProgress | None = None
        self._stage: SpikeStage = "calibrate"
        self._calibrated_per_s: float | None = None

    async def run(self, out_dir: Path | None) -> SpikeResult:
        rate_per_s = await self._rate()
        folder = out_dir or self.stack.run_folder
        async with self._reading() as (clients, results):
            if (await results.stats()).accepted:
                raise ConfigurationError("the queue is not fresh: its backlog would affect the figure")
            load_plan = self.plan.load(self.stack.url, rate_per_s)
            counting = self.stack.process_ids()
            async with self._sampling(results):
                self._stage = "fire"
                load = await run_load(
                    load_plan,
                    out_dir=folder,
                    on_progress=self._note_load,
                    api_key=self.stack.api_key,
                    budget=self._budget,
                )
                self._stage = "drain"
                await self._drain(results)
            self._stage = "reconcile"
            self._report_sample()
            states, capacity_per_s = await read_stored(results, load.accepted_ids)
            cost = await cost_per_job(self.stack, clients, max(1, len(load.accepted_ids)), counting)
        last = self.samples[-1][1]
        effects = read_effects(self.stack.effect_log)
        account = reconcile(load.accepted_ids, effects, states, last.queue_length + last.in_flight)
        self._report_sample(account.lost)
        result = self._result(load, account, capacity_per_s=capacity_per_s, folder=folder, **cost)
        result.save(folder)  # the naive part may fail, be interrupted, or take the kernel with it
        baseline: BaselineRun | None = None
        try:
            baseline, note = await self._baseline(load_plan, load.environment)
        except OverloadDemoError as error:
            note = f"it could not be measured: {error}"
        except asyncio.CancelledError:
            if task := asyncio.current_task():
                task.uncancel()
            note = "interrupted before its end"
        source = self.plan.baseline if baseline is not None else "none"
        beside = {"baseline": baseline, "baseline_source": source, "baseline_note": note}
        result = result.model_copy(update=beside)
        result.save(folder)
        self._report(SpikeProgress("over", self.plan.requests, result=result))
        return result

    async def _rate(self) -> float:
        """Return the requested rate, or one that this machine can accept; leave an unused stack."""
        if self.plan.rate_per_s is None and not self.stack.settings.uses_upstash:
            self._report(SpikeProgress("calibrate", self.plan.requests))
            self._calibrated_per_s = await calibrate(self.stack.url, api_key=self.stack.api_key)
            safe_per_s = min(self._calibrated_per_s * RATE_SHARE_OF_CALIBRATION, MOST_SIZED_PER_S)
            rate_per_s = float(round(safe_per_s, -1)) or 1.0
            await self.stack.fresh(spike_plan.sized_delay_s(rate_per_s) if self.plan.sizes_work else None)
            return rate_per_s
        async with self._reading() as (_, results):
            is_used = (await results.stats()).accepted > 0
        if is_used or any(self.stack.run_folder.glob("*.json")):
            await self.stack.fresh()
        return spike_plan.UPSTASH_RATE_PER_S if self.plan.rate_per_s is None else self.plan.rate_per_s

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[tuple[list[Upstash], Reader]]:
        """Open a reader of the stack's queue for the length of the block."""
        async with (
            opened(self.stack.store) as clients,
            contextlib.aclosing(results_of(clients, self.stack.settings)) as reader,
        ):
            yield clients, reader

    @contextlib.asynccontextmanager
    async def _sampling(self, results: Reader) -> AsyncIterator[None]:
        """Sample the queue and the memory of all processes for the length of the block."""
        tasks = [asyncio.create_task(task) for task in (self._sample_queue(results), self._sample_memory())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _sample_queue(self, results: Reader) -> None:
        while True:
            with contextlib.suppress(StoreError):  # a store that restarts leaves a gap in the curve
                await self._sample(results)
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def _sample(self, results: Reader) -> QueueStats:
        """Take one sample now. Raises :class:`StoreError`, also for one shard: sums without it would jump."""
        stats = await results.stats()
        if stats.unreachable:
            raise StoreUnavailableError("; ".join(stats.unreachable))
        self.samples.append((time.monotonic(), stats))
        self._report_sample()
        return stats

    async def _sample_memory(self) -> None:
        while True:
            ids = self.stack.process_ids()  # parts may be restarted
            for name, megabytes in (await asyncio.to_thread(_megabytes, ids, self.memory_kind)).items():
                self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), megabytes)
            await asyncio.sleep(MEMORY_EVERY_S)

    async def _drain(self, results: Reader) -> None:
        """Wait until the queue is empty, or stands still for a minute and two jobs' work although no worker is held."""
        moved_at, last = time.monotonic(), -1
        stuck_after_s = STUCK_AFTER_S + 2 * self.stack.settings.worker_processing_delay
        while time.monotonic() - moved_at < stuck_after_s:
            with contextlib.suppress(StoreError):
                stats = await self._sample(results)
                if stats.queue_length == stats.in_flight == 0:
                    return
                if stats.done + stats.failed != last or "worker" in self.stack.held:
                    moved_at, last = time.monotonic(), stats.done + stats.failed
            await asyncio.sleep(0.1)

    def _note_load(self, progress: LoadProgress) -> None:
        self._load, self._load_at_mono_s = progress, time.monotonic()

    def _report_sample(self, lost: int | None = None) -> None:
        """Report the last sample, beside the last numbers of the load."""
        (at_mono_s, stats), load = self.samples[-1], self._load
        if load is not None:
            elapsed_s = load.elapsed_s + at_mono_s - self._load_at_mono_s
            p99_s = load.response_p99_s if self._stage == "fire" else None
            load = replace(load, elapsed_s=elapsed_s, response_p99_s=p99_s)
        progress = SpikeProgress(
            self._stage,
            self.plan.requests,
            load,
            queue_depth=stats.queue_length,
            oldest_age_s=stats.oldest_age_s,
            settled=stats.done + stats.failed,
            drain_rate_per_s=stats.drain_rate_per_s,
            enqueued=None if self.plan.retry is None else stats.accepted,
            lost=lost,
        )
        self._report(progress)

    def _report(self, progress: SpikeProgress) -> None:
        for listener in self._listeners:
            listener(progress)

    async def _baseline(self, load_plan: LoadPlan, here: Environment) -> tuple[BaselineRun | None, str]:
        """Send the same schedule to the naive API for a bounded time, or find a recorded run of equal conditions."""
        plan = self.plan
        if plan.baseline == "none":
            return None, stored.NOT_ASKED_FOR
        delay_s, fires_s = self.stack.settings.worker_processing_delay, spike_plan.baseline_fires_s(load_plan)
        naive = replace(load_plan, timeout_s=BASELINE_TIMEOUT_S, expires_in_s=None, max_duration_s=fires_s)
        if plan.baseline == "recorded":
            return equal_recorded(here, BASELINE_VARIANT, naive, delay_s)
        self._report(SpikeProgress("baseline", plan.requests))
        run = await run_baseline(
            BASELINE_VARIANT, naive, delay_s, lambda load: self._report(SpikeProgress.of_baseline(load))
        )
        return run, f"measured now, fired for {fires_s:g} s, clients waited {BASELINE_TIMEOUT_S:g} s"

    def _result(self, load: LoadResult, account: Reconciliation, **measured: Any) -> SpikeResult:
        summary, series = load.summary(), self._series(load)
        failures = summary.failures if load.attempts is None else load.attempts.without_job
        errors = failures | ({"dropped": summary.dropped} if summary.dropped else {})
        repeats = 0 if summary.retry is None else summary.retry.repeats
        offered = summary.planned + repeats  # with clients that retry, each attempt is offered to the queue
        named, expired = ", ".join(f"{count:,} {name}" for name, count in errors.items()), self.samples[-1][1].expired
        missing = offered - account.accepted
        reasons = {
            f"{missing:,} of {offered:,} requests were not accepted ({named})": missing,
            f"{account.lost:,} accepted jobs were lost": account.lost,
            f"{account.unended:,} accepted jobs had not ended when the run did": account.unended,
            f"{expired:,} accepted jobs expired: they were not started in time and never run": expired,
        }
        return SpikeResult(
            recorded_at=utc_now(),
            verdict="not absorbed" if any(reasons.values()) else "absorbed",
            reasons=[reason for reason, count in reasons.items() if count],
            offered=offered,
            errors=errors,
            expired=expired,
            **vars(account),
            **measured,
            peak_queue_depth=max(series.queue_depth, default=0),
            drain_rate_per_s=series.drain_rate_per_s(),
            seconds_to_empty=series.seconds_to_empty(),
            peak_memory_mb=self.peak_mb,
            memory_kind=self.memory_kind,
            restarts=dict(self.stack.restarts),
            conditions=self._conditions(load.plan.rate_per_s),
            load=summary,
            series=series,
        )

    def _series(self, load: LoadResult) -> SpikeSeries:
        seen = load.series()
        samples = [(at_mono_s - load.started_mono_s, stats) for at_mono_s, stats in self.samples]
        times_s, queue = zip(*(sample for sample in samples if sample[0] >= -0.5), strict=True)
        return SpikeSeries(
            **{name: getattr(seen, name) for name in ("start_s", "offered_per_s", "accepted_per_s", "failed_per_s")},
            attempts_per_s=[] if load.attempts is None else seen.attempts_per_s,
            acceptance_p50_s=seen.response_p50_s,
            acceptance_p99_s=seen.response_p99_s,
            sampled_at_s=[round(at_s, 2) for at_s in times_s],
            queue_depth=[stats.queue_length for stats in queue],
            in_flight=[stats.in_flight for stats in queue],
            settled=[stats.done + stats.failed for stats in queue],
            oldest_age_s=[stats.oldest_age_s for stats in queue],
        )

    def _conditions(self, rate_per_s: float) -> Conditions:
        plan, settings, calibrated_per_s = self.plan, self.stack.settings, self._calibrated_per_s
        default = "default" if calibrated_per_s is None else "calibration"
        return Conditions(
            **vars(plan) | {"rate_per_s": rate_per_s},
            rate_chosen_by=default if plan.rate_per_s is None else "user",
            calibrated_per_s=None if calibrated_per_s is None else round(calibrated_per_s, 1),
            max_queue_depth=settings.overload_max_queue_depth,
            processing_delay_s=settings.worker_processing_delay,
            placement=self.stack.placement,
            store="upstash" if settings.uses_upstash else "embedded",
            nodes=settings.overload_nodes,
            durability=self.stack.store[0].durability_with(settings.overload_min_replicas),
            filesystem=filesystem_of(self.stack.folder),
            dashboard=self._dashboard,
            versions={name: version(name) for name in _PACKAGES} | {"python": sys.version.split()[0]},
        )


def _megabytes(ids: dict[str, int], kind: str) -> dict[str, float]:
    """Return the memory of each process by name, and of all load processes together; in 10^6 bytes."""
    sizes = Counter[str]()
    children = [("load generator", child.pid) for child in psutil.Process().children()]
    for name, pid in [*ids.items(), *children]:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if name != "load generator" or "overload_demo.load.sender" in process.cmdline():
                sizes[name] += int(getattr(process.memory_full_info(), kind))
    return {name: round(size / 1e6, 1) for name, size in sizes.items() if size}
