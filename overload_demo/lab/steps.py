"""The naive API under a rising load, one step of constant rate after the other.

``fresh=True`` gives each step a server of its own, so that a step shows its own rate and nothing else. With
``fresh=False`` one server takes all steps in a row, as in life: what an overload has left behind meets the next load.
"""

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab.app_stats import AppMonitor, AppSample
from overload_demo.lab.baseline import Variant
from overload_demo.lab.naive_api import baseline_server, processes_to_hold
from overload_demo.load import LoadPlan, LoadProgress, LoadResult, Shape, run_load
from overload_demo.load.plan import Floats
from overload_demo.load.summary import Environment, Percentiles, Verdict

CCDF_POINTS = 200
BROKEN_SHARE = 0.01
BUCKETS = 10  # the course of a step is kept in so many pieces


class LoadStep(BaseModel):
    """One step: requests at one rate, every one accounted for. Its numbers are all that figures are drawn from.

    ``planned = answered + sum(failures) + dropped`` (dropped: the load generator had no socket left for it).
    ``answered_meanwhile`` leaves out what came after the last request was due: goodput is counted while the load lasts.
    ``times_s`` and ``unanswered`` are the course of the CCDF: the share of all requests that had no answer after that
    time; it never falls below the share that failed. ``bucket_answered_per_s`` belongs to buckets of ``bucket_s``.
    The app's own account: ``backlog_before`` and ``backlog_after`` are requests it held when the step began and when
    the last client was gone, whose job or whose answer still waited for a thread (FastAPI takes one twice for a
    ``def``, so some of these jobs are complete); ``completed`` is the work it did in between, for whomever;
    ``slot_capacity_per_s`` is what its slot allowed so far, None without a slot.
    """

    model_config = ConfigDict(frozen=True)

    variant: Variant
    delay_s: float
    timeout_s: float
    seconds: float
    offered_per_s: float
    on_a_fresh_server: bool
    started_at: str
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
    slot_capacity_per_s: float | None
    verdict: Verdict
    reason: str
    environment: Environment

    @property
    def goodput_per_s(self) -> float:
        """Answers in time, a second, while the load lasted."""
        return self.answered_meanwhile / self.seconds

    @property
    def outcomes(self) -> dict[str, int]:
        """All requests by how they ended, in the words of the load generator; zeros left out."""
        every = {"answered": self.answered, **self.failures, "dropped": self.dropped}
        return {name: count for name, count in every.items() if count}

    @property
    def done_for_nobody(self) -> int:
        """Jobs the app completed whose client had left."""
        return max(0, self.completed - self.answered)

    @property
    def wasted_share(self) -> float:
        """``done_for_nobody`` as a share of all it completed, 0 to 1."""
        return self.done_for_nobody / self.completed if self.completed else 0.0


@dataclass(frozen=True)
class StepProgress:
    """How far the steps are: which one (from 1), of how many, and its load."""

    number: int
    steps: int
    offered_per_s: float
    load: LoadProgress


OnStepProgress = Callable[[StepProgress], None]


@dataclass(frozen=True)
class _Conditions:
    variant: Variant
    seconds: float
    delay_s: float
    timeout_s: float
    fresh: bool


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
    """Fire each of the rates for ``seconds`` at the naive API, and return what came of it, a step a rate.

    ``delay_s`` is the work, seconds a job; ``timeout_s`` how long a client waits. Cancellable; its servers end with it.
    Raises :class:`ConfigurationError` without a checkout or for a mistake in the load, :class:`OverloadDemoError` when
    the app does not start or says nothing of itself.
    """
    _check(rates_per_s, seconds)
    under = _Conditions(variant, seconds, delay_s, timeout_s, fresh)
    steps: list[LoadStep] = []
    async with contextlib.AsyncExitStack() as servers:
        for number, rate_per_s in enumerate(rates_per_s, start=1):
            if fresh or number == 1:
                await servers.aclose()
                app = await servers.enter_async_context(_app(variant, delay_s))

            def note(load: LoadProgress, number: int = number, rate_per_s: float = rate_per_s) -> None:
                if on_progress is not None:
                    on_progress(StepProgress(number, len(rates_per_s), rate_per_s, load))

            steps.append(await _step(app, rate_per_s, under, note))
    return steps


def breaks_at_per_s(steps: Sequence[LoadStep]) -> float:
    """The lowest offered rate at which more than 1 % of the requests went without an answer; NaN when none did."""
    broken = [one.offered_per_s for one in steps if one.answered < (1 - BROKEN_SHARE) * one.planned]
    return min(broken, default=math.nan)


def _check(rates_per_s: Sequence[float], seconds: float) -> None:
    if not rates_per_s:
        raise ConfigurationError("no step: give at least one rate")
    if not seconds > 0:
        raise ConfigurationError(f"a step must last longer than 0 seconds, not {seconds:g}")
    for rate_per_s in rates_per_s:
        if round(rate_per_s * seconds) < 1:
            raise ConfigurationError(f"{rate_per_s:g} requests a second for {seconds:g} s is not one request")


@dataclass(frozen=True)
class _App:
    url: str
    monitor: AppMonitor

    async def says(self) -> AppSample:
        """What it says of itself now; asked again once, as a server closes a connection that was idle for long."""
        known = len(self.monitor.samples)
        for _ in range(2):
            await self.monitor.sample()
            if len(self.monitor.samples) > known:
                return self.monitor.samples[-1]
        raise OverloadDemoError("the naive baseline did not answer /stats")


@contextlib.asynccontextmanager
async def _app(variant: Variant, delay_s: float) -> AsyncIterator[_App]:
    async with baseline_server(variant, delay_s) as url:
        monitor = AppMonitor(url)
        try:
            yield _App(url, monitor)
        finally:
            monitor.close()


async def _step(app: _App, rate_per_s: float, under: _Conditions, note: Callable[[LoadProgress], None]) -> LoadStep:
    requests = round(rate_per_s * under.seconds)
    plan = LoadPlan(
        app.url,
        requests=requests,
        rate_per_s=rate_per_s,
        shape=Shape.CONSTANT,
        timeout_s=under.timeout_s,
        processes=processes_to_hold(requests, rate_per_s, under.timeout_s),
        success_status=200,
    )
    before = await app.says()
    load = await run_load(plan, on_progress=note)
    after = await app.says()
    summary = load.summary()
    return LoadStep(
        variant=under.variant,
        delay_s=under.delay_s,
        timeout_s=under.timeout_s,
        seconds=under.seconds,
        offered_per_s=rate_per_s,
        on_a_fresh_server=before.completed == 0 and before.in_flight == 0,
        started_at=load.started_at,
        planned=summary.planned,
        answered=summary.accepted,
        failures=summary.failures,
        dropped=summary.dropped,
        response_time=summary.response_time,
        backlog_before=before.in_flight,
        backlog_after=after.in_flight,
        completed=after.completed - before.completed,
        slot_capacity_per_s=after.slot_capacity_per_s,
        verdict=summary.verdict,
        reason=summary.reason,
        environment=summary.environment,
        **_course(load, under.seconds),
    )


def _course(load: LoadResult, seconds: float) -> dict[str, Any]:
    """The CCDF over all requests, and the answers over time."""
    answered_s: Floats = np.sort(load.response_s[load.accepted])
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
