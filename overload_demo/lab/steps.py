"""The naive API under a rising load, in steps of constant rate.

``fresh=True`` gives each step a server of its own, so that a step shows only its own rate. With ``fresh=False`` one
server takes all steps in turn: the backlog of an overload meets the next load.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from overload_demo.errors import ConfigurationError
from overload_demo.lab.baseline import Variant
from overload_demo.lab.naive_api import NaiveServer, baseline_server, processes_to_hold
from overload_demo.load import LoadPlan, LoadProgress, LoadResult, Shape, run_load
from overload_demo.load.generator import OnLoadProgress
from overload_demo.load.summary import Environment, Percentiles, Verdict

CCDF_POINTS = 200
BROKEN_SHARE = 0.01
BUCKETS = 10  # in which the course of a step is kept


class LoadStep(BaseModel, frozen=True):
    """One step: requests at one rate, every one accounted for.

    ``planned = answered + sum(failures) + dropped`` (dropped: the load generator had no socket left).
    ``answered_meanwhile`` excludes responses after the last request was due: goodput is counted while the load lasts.
    ``times_s`` and ``unanswered`` are the CCDF: the share of all requests without a response after that time; it never
    falls below the share that failed. ``bucket_answered_per_s`` belongs to buckets of ``bucket_s``.

    The app's own counts: ``backlog_before`` and ``backlog_after`` are requests it held when the step began and when
    the last client had left, whose job or response still waited for a thread (FastAPI uses one twice for a ``def``, so
    some of these jobs are complete). ``completed`` counts all jobs in between.
    """

    variant: Variant
    delay_s: float
    timeout_s: float
    seconds: float
    offered_per_s: float
    on_a_fresh_server: bool
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
    verdict: Verdict
    reason: str
    environment: Environment

    @property
    def goodput_per_s(self) -> float:
        """Responses in time, a second, while the load lasted."""
        return self.answered_meanwhile / self.seconds

    @property
    def outcomes(self) -> dict[str, int]:
        """All requests by outcome, as the load generator names them; zeros left out."""
        every = {"answered": self.answered, **self.failures, "dropped": self.dropped}
        return {name: count for name, count in every.items() if count}

    @property
    def wasted(self) -> int:
        """Jobs the app completed after their client had left."""
        return max(0, self.completed - self.answered)

    @property
    def wasted_share(self) -> float:
        """``wasted`` as a share of all it completed, 0 to 1."""
        return self.wasted / self.completed if self.completed else 0.0


@dataclass(frozen=True)
class StepProgress:
    """How far the steps are: the number of the present one (from 1), how many, and its load."""

    number: int
    steps: int
    offered_per_s: float
    load: LoadProgress


OnStepProgress = Callable[[StepProgress], None]


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
    """Send each of the rates for ``seconds`` to the naive API, and return one step a rate.

    ``delay_s`` is the work, seconds a job; ``timeout_s`` bounds one request. Cancellable; its servers end with it.
    Raises :class:`ConfigurationError` without a checkout or for an invalid load, :class:`OverloadDemoError` when the
    app does not start or does not report its counts.
    """
    if not rates_per_s:
        raise ConfigurationError("no step: give at least one rate")
    if not seconds > 0:
        raise ConfigurationError(f"a step must last longer than 0 seconds, not {seconds:g}")
    for rate_per_s in rates_per_s:
        if round(rate_per_s * seconds) < 1:
            raise ConfigurationError(f"{rate_per_s:g} requests a second for {seconds:g} s is not one request")
    conditions = {"variant": variant, "delay_s": delay_s, "timeout_s": timeout_s, "seconds": seconds}
    steps: list[LoadStep] = []
    async with contextlib.AsyncExitStack() as servers:
        for number, rate_per_s in enumerate(rates_per_s, start=1):
            if fresh or number == 1:
                await servers.aclose()
                server = await servers.enter_async_context(baseline_server(variant, delay_s))

            def report(load: LoadProgress, number: int = number, rate_per_s: float = rate_per_s) -> None:
                if on_progress is not None:
                    on_progress(StepProgress(number, len(rates_per_s), rate_per_s, load))

            steps.append(await _step(server, rate_per_s, conditions, report))
    return steps


def breaks_at_per_s(steps: Sequence[LoadStep]) -> float:
    """Return the lowest offered rate at which more than 1 % of the requests got no response; NaN if none did."""
    broken = [one.offered_per_s for one in steps if one.answered < (1 - BROKEN_SHARE) * one.planned]
    return min(broken, default=math.nan)


async def _step(
    server: NaiveServer, rate_per_s: float, conditions: dict[str, Any], on_progress: OnLoadProgress
) -> LoadStep:
    timeout_s, seconds = conditions["timeout_s"], conditions["seconds"]
    requests = round(rate_per_s * seconds)
    plan = LoadPlan(
        server.url,
        requests=requests,
        rate_per_s=rate_per_s,
        shape=Shape.CONSTANT,
        timeout_s=timeout_s,
        processes=processes_to_hold(requests, rate_per_s, timeout_s),
        success_status=200,
    )
    before = await server.sample()
    load = await run_load(plan, on_progress=on_progress)
    after = await server.sample()
    summary = load.summary()
    return LoadStep(
        **conditions,
        offered_per_s=rate_per_s,
        on_a_fresh_server=before.completed == 0 and before.in_flight == 0,
        planned=summary.planned,
        answered=summary.accepted,
        failures=summary.failures,
        dropped=summary.dropped,
        response_time=summary.response_time,
        backlog_before=before.in_flight,
        backlog_after=after.in_flight,
        completed=after.completed - before.completed,
        verdict=summary.verdict,
        reason=summary.reason,
        environment=summary.environment,
        **_course(load, seconds),
    )


def _course(load: LoadResult, seconds: float) -> dict[str, Any]:
    """Compute the CCDF over all requests, and the responses over time."""
    answered_s = np.sort(load.response_s[load.accepted])
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
