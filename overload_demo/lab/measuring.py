"""Loads on a running stack, one after the other, with a freeze if wanted, and what may be concluded from them."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab.crashes import frozen
from overload_demo.lab.spike_plan import OnStepProgress
from overload_demo.lab.stack import Stack, check_killable
from overload_demo.load import LoadPlan, LoadProgress, LoadResult, run_load
from overload_demo.load.generator import steady_per_s
from overload_demo.load.plan import Floats

RESAMPLES = 2_000


@dataclass(frozen=True)
class Freeze:
    """A part of a stack that stops (SIGSTOP) for ``for_s`` seconds, at least ``after_s`` after the load has begun.

    Raises :class:`ConfigurationError` for an unknown part.
    """

    part: str
    after_s: float
    for_s: float

    def __post_init__(self) -> None:
        check_killable(self.part)


@dataclass(frozen=True)
class MeasuredLoad:
    """A load, and the beginning and end of the freeze in it, seconds since the load began; None without one."""

    result: LoadResult
    frozen_s: tuple[float, float] | None

    @property
    def times_s(self) -> Floats:
        """Times of the accepted requests from the intended send to the response, seconds, in the order of sending."""
        return self.result.response_s[self.result.accepted]


async def measure(
    stack: Stack, plans: Sequence[LoadPlan], freeze: Freeze | None = None, on_progress: OnStepProgress | None = None
) -> list[MeasuredLoad]:
    """Send each of ``plans`` to ``stack``, one after the other, with the same freeze in each.

    Cancellable; a frozen part then continues at once. Raises :class:`OverloadDemoError` when the part is not a running
    process, and the errors of :func:`run_load`.
    """
    return [
        await _measure(stack, plan, freeze, partial(on_progress, number, plan.rate_per_s) if on_progress else None)
        for number, plan in enumerate(plans, 1)
    ]


async def _measure(
    stack: Stack, plan: LoadPlan, freeze: Freeze | None, on_progress: "partial[None] | None"
) -> MeasuredLoad:
    is_due = asyncio.Event()

    def report(load: LoadProgress) -> None:
        if freeze and load.elapsed_s >= freeze.after_s:
            is_due.set()
        if on_progress:
            on_progress(load)

    async def stop_and_continue(one: Freeze) -> tuple[float, float]:
        await is_due.wait()
        with frozen(stack, one.part):
            stopped_mono_s = time.monotonic()
            await asyncio.sleep(one.for_s)
            return stopped_mono_s, time.monotonic()

    freezing = asyncio.create_task(stop_and_continue(freeze)) if freeze else None
    try:
        result = await run_load(plan, on_progress=report, api_key=stack.api_key)
    finally:
        if freezing is not None:
            freezing.cancel()
            await asyncio.wait([freezing])
    if freezing is None or freezing.cancelled():
        return MeasuredLoad(result, None)
    stopped_s, continued_s = (at_mono_s - result.started_mono_s for at_mono_s in freezing.result())
    return MeasuredLoad(result, (stopped_s, continued_s))


def corrected(times_s: Sequence[float] | Floats, interval_s: float) -> Floats:
    """Return the times of a closed loop, and of the requests that its clients did not send while they waited.

    A client that sends every ``interval_s`` and waits ``t`` for a response leaves requests out. They would have taken
    ``t - interval_s``, ``t - 2 * interval_s`` and so on, the last one at least ``interval_s``: the rule of
    ``recordValueWithExpectedInterval`` in HdrHistogram (G. Tene; class AbstractHistogram of the Java version).
    """
    times = np.asarray(times_s, dtype=np.float64)
    left_out = np.maximum(np.floor(times / interval_s + 1e-9).astype(int) - 1, 0)
    added = [time_s - interval_s * np.arange(1, count + 1) for time_s, count in zip(times, left_out, strict=True)]
    return np.concatenate([times, *added])


@dataclass(frozen=True)
class Pairs:
    """Two variants measured in turns: accepted requests a second, shape ``(pairs,)``; ``doubts`` of the generator."""

    a_per_s: Floats
    b_per_s: Floats
    doubts: tuple[str, ...] = ()

    @property
    def ratios(self) -> Floats:
        """B ÷ A of each pair."""
        return self.b_per_s / self.a_per_s

    @property
    def b_wins(self) -> int:
        """The pairs in which B was faster."""
        return int(np.count_nonzero(self.b_per_s > self.a_per_s))


async def in_turns(
    stack: Stack, a: LoadPlan, b: LoadPlan, pairs: int, on_progress: OnStepProgress | None = None
) -> Pairs:
    """Measure closed loops ``a`` and ``b`` in turns: A B, B A, A B, ..., so that a slow drift meets both equally.

    Each plan needs ``connections`` and ``max_duration_s``; the first fifth of each turn is not counted.
    Raises :class:`ConfigurationError` otherwise, :class:`OverloadDemoError` if a turn accepted nothing that counts, and
    the errors of :func:`run_load`.
    """
    if pairs < 1 or not all(plan.is_closed and plan.max_duration_s for plan in (a, b)):
        raise ConfigurationError("turns need at least one pair, and plans with connections and max_duration_s")
    order = [plan for number in range(pairs) for plan in ((a, b) if number % 2 == 0 else (b, a))]
    results = [one.result for one in await measure(stack, order, on_progress=on_progress)]
    rates = np.array([steady_per_s(result) for result in results]).reshape(pairs, 2)
    rates[1::2] = rates[1::2, ::-1]  # of these, B came first
    if not rates.all():
        raise OverloadDemoError("a turn accepted no request after its first fifth: a longer max_duration_s is needed")
    doubts = dict.fromkeys(doubt for result in results if (doubt := result.summary().doubt))
    return Pairs(rates[:, 0], rates[:, 1], tuple(doubts))


def sign_test(wins: int, pairs: int) -> float:
    """Return how likely chance alone is to split ``pairs`` at least as unevenly, in either direction, 0 to 1.

    As if each pair were the toss of a coin (W. J. Dixon and A. M. Mood, *The Statistical Sign Test*, JASA 41, 1946).
    """
    more = max(wins, pairs - wins)
    return min(1.0, 2 * sum(math.comb(pairs, heads) for heads in range(more, pairs + 1)) * 0.5**pairs)


def median_interval(values: Sequence[float] | Floats) -> tuple[float, float]:
    """Return a 95 % interval of the median: that of medians of samples drawn from ``values`` with replacement.

    The percentile bootstrap (B. Efron, *Bootstrap Methods*, Annals of Statistics 7, 1979). Too narrow for few values.
    """
    drawn = np.random.default_rng(0).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5]).tolist()
    return low, high
