"""A retry storm on the real stack: clients that wait for results, one worker, and a store that freezes for seconds.

A client that has waited ``timeout_s`` for a result gives up and submits its job again; the worker still does the
abandoned job. Each retry is work, and work is what the clients wait for: this loop outlasts the freeze.
"""

import asyncio
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from overload_demo.errors import ConfigurationError
from overload_demo.lab.crashes import frozen
from overload_demo.lab.job_log import read_events
from overload_demo.lab.spike_plan import OnStepProgress
from overload_demo.lab.stack import Stack
from overload_demo.load import (
    LoadPlan,
    LoadProgress,
    LoadResult,
    RetryBudget,
    RetryPolicy,
    Shape,
    TokenBucket,
    run_load,
)
from overload_demo.load.generator import OnLoadProgress
from overload_demo.load.plan import BackoffKind, Jitter, Until

# A client as many are written: three retries, at once, and each is a new job.
IMPATIENT = RetryPolicy(
    attempts=4,
    backoff=BackoffKind.NONE,
    jitter=Jitter.NONE,
    idempotency_key=False,
    until=Until.DONE,
    poll_s=0.1,
)
SETTLE_S = 1.0  # after the freeze: what the API held back is in the queue by then
BACK_SHARE = 0.8  # chosen: of the requests, with a result in time
WINDOW_S = 2.0  # chosen: over which this share is taken


@dataclass(frozen=True)
class StormPlan:
    """Arrivals and trigger: ``per_s`` new requests a second, each a job of ``work_s`` seconds.

    A client waits ``timeout_s`` for a result. The freeze begins after ``calm_s`` and lasts ``freeze_s``; arrivals end
    ``after_s`` later. Raises :class:`ConfigurationError` for a value that is not above 0.
    """

    per_s: float
    work_s: float = 0.01
    timeout_s: float = 1.0
    calm_s: float = 2.0
    freeze_s: float = 5.0
    after_s: float = 8.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 < value < 10_000:
                raise ConfigurationError(f"{name} must be above 0 and below 10,000, not {value:g}")

    @property
    def thaws_s(self) -> float:
        """When the freeze ends, seconds."""
        return self.calm_s + self.freeze_s

    @property
    def ends_s(self) -> float:
        """When the arrivals end, seconds."""
        return self.thaws_s + self.after_s

    @property
    def counts_at_s(self) -> tuple[float, float]:
        """When the queue is counted, seconds: soon after the freeze, and at the end."""
        return self.thaws_s + min(SETTLE_S, self.after_s / 4), self.ends_s


@dataclass(frozen=True)
class Cure:
    """How the clients retry, the most jobs in the queue (0: any number), and the deadline of each job, seconds."""

    name: str
    clients: RetryPolicy = IMPATIENT
    room: int = 0
    expires_in_s: float | None = None

    @classmethod
    def of(cls, name: str, *, room: int = 0, expires_in_s: float | None = None, **clients: Any) -> "Cure":
        """Return impatient clients with other values of some fields of :class:`RetryPolicy`."""
        return cls(name, dataclasses.replace(IMPATIENT, **clients), room, expires_in_s)


@dataclass
class StormLog:
    """What happened when, seconds since the first request, each in its order.

    ``requests_s``: new requests. ``attempts_s``: everything that clients sent, first attempts and retries.
    ``in_time_s``: results in a client's hands within its time-out. ``done_s``: jobs that the worker did, wanted or not.
    ``waiting``: jobs in the queue at the times of ``StormPlan.counts_at_s``.
    """

    requests_s: list[float] = field(default_factory=list)
    attempts_s: list[float] = field(default_factory=list)
    in_time_s: list[float] = field(default_factory=list)
    done_s: list[float] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class StormRun:
    """One storm, simulated or measured; ``doubt`` is why its numbers may be the load generator's own, else empty."""

    cure: Cure
    plan: StormPlan
    log: StormLog
    is_measured: bool = False
    doubt: str = ""

    @property
    def load(self) -> float:
        """The load without retries: new requests a second x seconds a job."""
        return self.plan.per_s * self.plan.work_s

    @property
    def retries(self) -> int:
        """The most retries of a request."""
        return self.cure.clients.attempts - 1

    @property
    def done_per_s(self) -> float:
        """Jobs done a second from the end of the freeze to the end of the arrivals."""
        return _count(self.log.done_s, self.plan.thaws_s, self.plan.ends_s) / self.plan.after_s

    @property
    def back_s(self) -> float | None:
        """Seconds from the end of the freeze until results in time come at 80 % of the requests' rate; None: not yet.

        The rate is taken over half a second, and once more over the last two.
        """
        if self.goodput_at_end < BACK_SHARE:
            return None
        width_s, thaws_s = self._window_s / 4, self.plan.thaws_s
        starts_s = np.arange(thaws_s, self.plan.ends_s, width_s / 10)
        counts = [_count(self.log.in_time_s, at_s, at_s + width_s) for at_s in starts_s]
        return float(starts_s[np.argmax(np.array(counts) >= BACK_SHARE * self.plan.per_s * width_s)] - thaws_s)

    @property
    def goodput_at_end(self) -> float:
        """Results in time ÷ new requests, in the last seconds of the arrivals."""
        return self.rate_at_end(self.log.in_time_s) / self.plan.per_s

    def rate_at_end(self, times_s: Sequence[float]) -> float:
        """Return how many of ``times_s`` a second lie in the last seconds of the arrivals."""
        return _count(times_s, self.plan.ends_s - self._window_s, self.plan.ends_s) / self._window_s

    @property
    def _window_s(self) -> float:
        return min(WINDOW_S, self.plan.after_s / 4)

    @property
    def outcome(self) -> str:
        """``recovered``, ``drains`` (not yet, and the queue is shorter than after the freeze), or ``storm``."""
        if self.goodput_at_end >= BACK_SHARE:
            return "recovered"
        return "drains" if self.log.waiting[1] < self.log.waiting[0] else "storm"


class FunctionBucket:
    """A retry budget from a function ``take(tokens, requests)`` that returns whether to repeat, and the tokens left.

    ``requests`` counts the new requests since the call before. It starts with ``burst`` tokens. A function that does
    not return such a pair yet is replaced by a :class:`TokenBucket`.
    """

    def __init__(self, take: Callable[[float, int], Any], ratio: float, burst: float) -> None:
        self._take, self._tokens, self._requests = take, burst, 0
        self._spare = None if _returns_pairs(take, burst) else TokenBucket(ratio, burst)

    def take(self, requests: int) -> bool:
        """Ask the function, after ``requests`` first attempts in total."""
        if self._spare:
            return self._spare.take(requests)
        new, self._requests = requests - self._requests, requests
        allowed, self._tokens = self._take(self._tokens, new)
        return bool(allowed)


def _returns_pairs(take: Callable[[float, int], Any], burst: float) -> bool:
    try:
        return all(float(take(tokens, new)[1]) < math.inf for tokens, new in ((burst, 0), (0.0, 0), (0.5, 100)))
    except Exception:  # a student's function may raise anything
        return False


async def run_storms(
    storms: Sequence[tuple[StormPlan, Cure]],
    on_progress: OnStepProgress | None = None,
    *,
    budget: Callable[[], RetryBudget] | None = None,
    runs: Path = Path("runs"),
    name: str = "notebook-06",
) -> list[StormRun]:
    """Measure each storm on a stack of its own, with API, worker and store as processes; the stack is stopped.

    ``budget`` makes the budget of clients that have one. ``on_progress`` gets the number of the storm, its rate and the
    progress of its load, in which *accepted* are results in time. Cancellable. Raises :class:`OverloadDemoError` when
    an experiment itself fails.
    """
    measured = []
    for number, (plan, cure) in enumerate(storms, start=1):
        stack = await Stack.start(
            placement="process",
            processing_delay_s=plan.work_s,
            runs=runs,
            name=name,
            overload_max_queue_depth=cure.room,
        )
        async with stack:
            own = budget() if budget and cure.clients.budget is not None else None
            report = None if on_progress is None else functools.partial(on_progress, number, plan.per_s)
            measured.append(await _run_storm(stack, plan, cure, own, report))
    return measured


async def _run_storm(
    stack: Stack, plan: StormPlan, cure: Cure, budget: RetryBudget | None, on_progress: OnLoadProgress | None
) -> StormRun:
    load_plan = LoadPlan(
        stack.url,
        requests=max(1, round(plan.per_s * plan.ends_s)),
        rate_per_s=plan.per_s,
        shape=Shape.CONSTANT,
        timeout_s=plan.timeout_s,
        expires_in_s=cure.expires_in_s,
        retry=cure.clients,
    )
    began = asyncio.get_running_loop().create_future()

    def report(progress: LoadProgress) -> None:
        if not began.done():
            began.set_result(time.monotonic() - progress.elapsed_s)
        if on_progress:
            on_progress(progress)

    try:
        async with asyncio.TaskGroup() as group:
            trigger = group.create_task(_freeze(stack, plan, began))
            load = await run_load(
                load_plan, out_dir=stack.run_folder, on_progress=report, api_key=stack.api_key, budget=budget
            )
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return StormRun(cure, plan, _log_of(load, stack.effect_log, trigger.result()), True, load.summary().doubt)


async def _freeze(stack: Stack, plan: StormPlan, began: "asyncio.Future[float]") -> list[int]:
    """Freeze the store when it is time, and count the waiting jobs afterwards."""
    began_mono_s, waiting = await began, []

    async def until(at_s: float) -> None:
        await asyncio.sleep(began_mono_s + at_s - time.monotonic())

    await until(plan.calm_s)
    with frozen(stack):
        await until(plan.thaws_s)
    for at_s in plan.counts_at_s:
        await until(at_s)
        waiting.append((await asyncio.to_thread(stack.get, "/queue/stats"))["queue_length"])
    return waiting


def _log_of(load: LoadResult, effect_log: Path, waiting: list[int]) -> StormLog:
    """Put the clients' records and the worker's log onto one axis of time."""
    effects_s = [one.at_mono_s - load.started_mono_s for one in read_events(effect_log) if one.what == "effect"]
    sent_s = load.sent_s if load.attempts is None else load.attempts.sent_s
    in_time_s = np.sort(load.done_s[load.accepted])
    return StormLog(load.intended_s.tolist(), sent_s.tolist(), in_time_s.tolist(), effects_s, waiting)


def _count(times_s: Sequence[float], from_s: float, to_s: float) -> int:
    return sum(from_s <= at_s < to_s for at_s in times_s)
