"""Figures of round trips: time to the 202 and REST calls a job, by the distance of the store or the batch limit."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from overload_demo.errors import ConfigurationError
from overload_demo.lab import BLUE, GREEN, NAIVE, OFFERED, PREDICTED, Look
from overload_demo.lab.plots.accessible_figure import AccessibleFigure, drawing, note, predicted
from overload_demo.lab.round_trips import Acceptance

_MEDIAN: Look = {"color": BLUE, "linewidth": 3, "marker": "o", "markersize": 9}
_TAIL: Look = {"color": GREEN, "linewidth": 2.5, "linestyle": (0, (6, 2)), "marker": "s", "markersize": 8}
_GUESS = PREDICTED | {"linestyle": "none", "marker": "X", "markersize": 15, "clip_on": False}


def distances(
    runs: Sequence[Acceptance], *, median_ms: float | None = None, calls_per_job: float | None = None
) -> AccessibleFigure:
    """Draw runs that differ in the distance of the store. ``median_ms`` and ``calls_per_job`` are predictions for the
    farthest one.
    """
    at = [1000 * one.round_trip_s for one in runs]
    title = "Time to the 202, and REST calls a job, by the distance of the store"
    with drawing(2, height=8.5, title=title, sharex=True) as (figure, (times, calls)):
        _curves(times, calls, at, runs, beside=True)
        times.plot(at, at, label="one round trip", **OFFERED)
        if median_ms is not None:
            times.plot(at[-1:], [median_ms], label="predicted median", **_GUESS)
        if calls_per_job is not None:
            calls.plot(at[-1:], [calls_per_job], label="predicted", **_GUESS)
            calls.set_ylim(0, 1.25 * max(1, calls_per_job))
        calls.set_xlabel("round trip to the store, ms")
    alt = f"Against the round trip to the store. {_text([f'{one:g} ms' for one in at], runs)}"
    alt += predicted("A median of {:,.0f} ms was predicted for the farthest store.", median_ms)
    alt += predicted("{:g} calls a job were predicted for it.", calls_per_job)
    return AccessibleFigure(figure, alt, f"{_load(runs)} Only the distance of the store differs.")


def batches(runs: Sequence[Acceptance], plain: Acceptance, *, needed: float | None = None) -> AccessibleFigure:
    """Draw runs that differ in the batch limit, beside the plain recipe. ``needed`` is a computed smallest limit."""
    at, far_ms = [float(one.max_batch) for one in runs], 1000 * runs[-1].round_trip_s
    title = "Time to the 202, and REST calls a job, by the batch limit"
    with drawing(2, height=9, title=title, sharex=True) as (figure, (times, calls)):
        _curves(times, calls, at, runs)
        times.axhline(far_ms, label="one round trip", **OFFERED)
        times.axhline(plain.p50_ms, label="plain recipe, median", **NAIVE)
        calls.axhline(plain.calls_per_job, label="plain recipe", **NAIVE)
        calls.set_xlabel("most jobs in one call")
        for axes in (times, calls) if needed is not None else ():
            axes.axvline(needed, label=f"computed: {needed:g}", **PREDICTED)
    alt = f"Against the batch limit. {_text([f'{one:g}' for one in at], runs)} {_text(['plain recipe'], [plain])}"
    alt += predicted("The computed smallest limit is {:g}.", needed)
    caption = f"{_load([*runs, plain])} The store is {far_ms:g} ms away. Only the batch limit differs; the plain recipe"
    return AccessibleFigure(figure, alt, f"{caption} is another program, with as many calls in flight as requests.")


def _curves(times: Axes, calls: Axes, at: Sequence[float], runs: Sequence[Acceptance], *, beside: bool = False) -> None:
    """Draw median and 99th percentile above, calls a job below, each with its number: above it, or ``beside`` it.

    Raises :class:`ConfigurationError` for runs of different loads.
    """
    if len({(one.load.planned, one.rate_per_s) for one in runs}) != 1:
        raise ConfigurationError("no fair comparison: the runs had different loads")
    times.plot(at, [one.p50_ms for one in runs], label="group commit, median", **_MEDIAN)
    times.plot(at, [one.p99_ms for one in runs], label="group commit, 99 of 100", **_TAIL)
    calls.plot(at, [one.calls_per_job for one in runs], label="group commit", **_MEDIAN)
    for place, one in zip(at, runs, strict=True):
        offset, side = ((10, 6), "left") if beside else ((0, 14), "center")  # beside: a predicted mark stands above
        note(calls, f"{one.calls_per_job:.2f}", (place, one.calls_per_job), offset, ha=side)
    times.set(xscale="log", yscale="log", ylabel="time to the 202, ms")
    calls.set(xscale="log", ylabel="REST calls a job", ylim=(0, 1.25))
    for axes in (times, calls):
        axes.xaxis.set(minor_locator=NullLocator(), major_locator=FixedLocator(list(at)))
        axes.xaxis.set_major_formatter(_plain)


def _plain(value: float, _: Any = None) -> str:
    return f"{value:g}"


def _text(names: Sequence[str], runs: Sequence[Acceptance]) -> str:
    return " ".join(
        f"{name}: median {one.p50_ms:,.0f} ms, p99 {one.p99_ms:,.0f} ms, {one.calls_per_job:.2f} calls a job."
        for name, one in zip(names, runs, strict=True)
    )


def _load(runs: Sequence[Acceptance]) -> str:
    """Return the load of the runs as a sentence, and what is doubtful about it."""
    text = f"Measured now: {runs[0].load.planned:,} requests a run at {runs[0].rate_per_s:,.0f}/s."
    lost = [f"{it.name or it.max_batch}: {it.load.accepted:,} accepted" for it in runs if not it.load.all_accepted]
    bound = [f"{it.name or it.max_batch}" for it in runs if it.load.verdict != "valid"]
    text += f" Not all accepted: {'; '.join(lost)}." if lost else ""
    return text + (f" Generator-bound, read with care: {', '.join(bound)}." if bound else "")
