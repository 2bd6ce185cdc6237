"""Figures of measurements: loads with a freeze, retransmits, pairs, the knee, and round trips to the store."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from overload_demo.errors import ConfigurationError
from overload_demo.lab import BLUE, CURVES, GREEN, GREY, GUESS, NAIVE, OFFERED, ORANGE, PREDICTED, QUEUE, Look, theory
from overload_demo.lab.measuring import MeasuredLoad, Pairs, median_interval, sign_test
from overload_demo.lab.naive_api import LoadStep
from overload_demo.lab.plots.accessible_figure import AccessibleFigure, doubtful, drawing, note, predicted
from overload_demo.lab.round_trips import Acceptance
from overload_demo.load import intended_times
from overload_demo.load.plan import Floats, duration

_MARKED: Look = {"linewidth": 3, "markersize": 8, "markevery": 20}
_MEAN: Look = {"marker": "*", "linestyle": "none", "markersize": 20, "markeredgecolor": "black", "zorder": 4}
_TICKS = (25, 50, 75, 90, 95, 98, 99, 99.5, 99.8, 99.9)
_MEDIAN: Look = CURVES[0] | {"linewidth": 3, "markersize": 9}
_TAIL: Look = CURVES[2] | {"linewidth": 2.5, "linestyle": (0, (6, 2)), "markersize": 8}
_BIN_S = 0.05
_AT_THE_SIDE = ("data", "axes fraction")  # x by the data, y as a share of the height


def samples(runs: Mapping[str, MeasuredLoad]) -> AccessibleFigure:
    """Draw each request as a dot, its time over the moment it was due, a panel a run; the freeze is shaded."""
    texts = []
    with drawing(1, len(runs), height=5.5, sharey=True, squeeze=False) as (figure, [panels]):
        for axes, (name, run), look in zip(panels, runs.items(), cycle(CURVES)):
            due_s = run.result.intended_s[run.result.accepted]
            axes.plot(due_s, run.times_s, look["marker"], color=look["color"], markersize=4, rasterized=True)
            axes.set_title(f"{name}: {due_s.size:,} requests", fontsize=17)
            axes.set(xlabel="due, seconds since the load began", yscale="log")
            text = f"{name}: {due_s.size:,} requests, the longest took {np.max(run.times_s, initial=0.0):,.2f} s"
            if run.frozen_s:
                axes.axvspan(*run.frozen_s, color=GREY, alpha=0.2)
                due = int(np.count_nonzero((due_s >= run.frozen_s[0]) & (due_s < run.frozen_s[1])))
                note(axes, f"{due:,} due here", (run.frozen_s[0], 0), (4, 6), xycoords=_AT_THE_SIDE)
                text += f"; due in the freeze: {due:,}, from {run.frozen_s[0]:.1f} s to {run.frozen_s[1]:.1f} s"
            texts.append(f"{text}.")
        panels[0].set_ylabel("time to the 202, s")
    alt = "The time of each request over the moment it was due. " + " ".join(texts)
    return AccessibleFigure(figure, alt, "A dot is a request. Grey: the time in which the process stood still.")


def spectrum(
    times_s: Mapping[str, Sequence[float] | Floats], *, p99_s: Mapping[str, float] | None = None
) -> AccessibleFigure:
    """Draw the percentiles of up to three sets of times (seconds), with the mean of each at its percentile.

    The axis of percentiles begins at 25 % and stretches the slow end: each tenfold rarer request is one step further.
    ``p99_s`` are predictions of the 99th percentile, by set.
    """
    sets = {name: np.asarray(one, dtype=np.float64) for name, one in times_s.items()}
    if not sets or not all(one.size for one in sets.values()):
        raise ConfigurationError("no request was accepted, so there are no percentiles to draw")
    texts, percent = [], 100 * (1 - np.geomspace(0.75, 0.001, 181))
    with drawing(height=6.5, title="How long do the slowest requests take?") as (figure, axes):
        for (name, one), look in zip(sets.items(), cycle(CURVES)):
            values, mean_s = np.percentile(one, percent), float(one.mean())
            axes.plot(_rarity(percent), values, label=f"{name}, {one.size:,}", **_MARKED, **look)
            below = 100 * float(np.mean(one < mean_s))
            axes.plot(_rarity([below]), [mean_s], color=look["color"], **_MEAN)
            half_s, tail_s = np.percentile(one, [50, 99]).tolist()
            text = f"{name}: median {duration(half_s)}, mean {duration(mean_s)}, p99 {duration(tail_s)}"
            texts.append(f"{text}; {below:.3g} % took less than the mean.")
        axes.plot([], [], color="white", label="mean", **_MEAN)
        for (name, guess_s), marker in zip((p99_s or {}).items(), "XP", strict=False):
            axes.plot(_rarity([99]), [guess_s], label=f"predicted, {name}", **GUESS | {"marker": marker})
            texts.append(f"Predicted p99, {name}: {duration(guess_s)}.")
        axes.set(yscale="log", xlabel="so many % of the requests ...", ylabel="... took at most so many seconds")
        axes.set_xticks(_rarity(_TICKS), [f"{tick:g}" for tick in _TICKS])
    return AccessibleFigure(figure, "Percentiles of the times to the 202. " + " ".join(texts))


def _rarity(percent: Sequence[float] | Floats) -> Floats:
    return -np.log10(1 - np.asarray(percent) / 100)


def retransmits(run: MeasuredLoad) -> AccessibleFigure:
    """Draw how many requests took how long, in bins of 50 ms, with the freeze and the kernel's repeats marked."""
    times_s, freeze_s = run.times_s, (run.frozen_s[1] - run.frozen_s[0] if run.frozen_s else 0.0)
    edges_s = np.arange(0, max(1.5, float(times_s.max(initial=0))) + 2 * _BIN_S, _BIN_S)
    counts = np.histogram(times_s, edges_s)[0]
    repeated = int(np.count_nonzero(times_s >= 1.0))
    with drawing(height=5.5, title=f"A freeze of {freeze_s:.1f} s, and {repeated:,} requests over 1 s") as (
        figure,
        axes,
    ):
        axes.axvspan(0, freeze_s, color=GREY, alpha=0.2)
        axes.plot(edges_s[:-1][counts > 0] + _BIN_S / 2, counts[counts > 0], "o", color=BLUE, markersize=11)
        note(axes, "a wait for the frozen\nprocess ends here", (freeze_s, 1), (5, 0), va="top", xycoords=_AT_THE_SIDE)
        for second in range(1, int(edges_s[-1]) + 1):
            axes.axvline(second, color=ORANGE, linewidth=2.5, linestyle=(0, (4, 1.5)))
            note(axes, f"{second} s", (second, 1), (-4, 6), color=ORANGE, xycoords=_AT_THE_SIDE, ha="center")
        axes.set(xlabel="time to the 202, s", ylabel="requests", yscale="log", xlim=(0, None), ylim=(0.5, None))
    alt = (
        f"How long {times_s.size:,} requests took, while the API stood still for {freeze_s:.1f} s:"
        f" {int(np.count_nonzero(times_s < _BIN_S)):,} took less than 50 ms, {repeated:,} took 1 s or longer, and"
        f" {int(np.count_nonzero((times_s > freeze_s + _BIN_S) & (times_s < 1.0))):,} between the freeze and 1 s."
    )
    return AccessibleFigure(figure, alt, "A dot counts the requests of 50 ms. Grey: up to the length of the freeze.")


def pairs(measured: Pairs) -> AccessibleFigure:
    """Draw B ÷ A of each pair as a dot, the median ratio with its 95 % interval, and the line of no difference."""
    percent = 100 * (measured.ratios - 1)
    low, high = (100 * (ratio - 1) for ratio in median_interval(measured.ratios))
    count, chance = percent.size, sign_test(measured.b_wins, percent.size)
    title = f"B was faster in {measured.b_wins} of {count} pairs; chance alone does that with probability {chance:.2g}"
    with drawing(height=5.5, title=title) as (figure, axes):
        axes.axhline(0, color="black", linewidth=2, label="no difference")
        axes.axhspan(low, high, color=BLUE, alpha=0.15, label="95 % interval of the median")
        axes.axhline(float(np.median(percent)), color=BLUE, linewidth=2.5, linestyle="-.", label="median")
        axes.plot(np.arange(1, count + 1), percent, "o", color=ORANGE, markersize=10, label="one pair")
        axes.set(xlabel="pair", ylabel="B faster than A by, %", xlim=(0.5, count + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True)
    alt = (
        f"{count} pairs. B was faster in {measured.b_wins}, by {np.median(percent):+.1f} % in the median (95 % interval"
        f" {low:+.1f} to {high:+.1f} %), from {percent.min():+.1f} to {percent.max():+.1f} %. Chance alone splits"
        f" {count} pairs at least as unevenly with probability {chance:.2g}."
    )
    doubts = f" Generator-bound turns: {'; '.join(measured.doubts)}." if measured.doubts else ""
    return AccessibleFigure(figure, alt, f"A: {np.median(measured.a_per_s):,.0f} accepted a second.{doubts}")


def knee(steps: Sequence[LoadStep], *, limit_s: float | None = None) -> AccessibleFigure:
    """Draw answers a second, and times to the answer, against the offered rate; theory for the same arrivals.

    Theory: one slot, first come, first served, a job of 1 ÷ the best measured rate. ``limit_s`` is drawn as a line.
    Raises :class:`ConfigurationError` for steps in which clients gave up: their times would be missing.
    """
    if not steps or any(one.answered < one.planned for one in steps):
        raise ConfigurationError("the knee needs steps in which every request is answered: use a longer time-out")
    rates, answered = [one.offered_per_s for one in steps], [one.goodput_per_s for one in steps]
    best = max(answered)
    measured = np.array([np.percentile(one.response_s, [50, 99]) for one in steps])
    arrivals = (intended_times(one.shape, one.planned, one.offered_per_s, one.seed) for one in steps)
    expected = np.array([np.percentile(theory.waits_s(at_s, 1 / best) + 1 / best, [50, 99]) for at_s in arrivals])
    with drawing(2, height=9, sharex=True) as (figure, (above, below)):
        above.plot([0, max(rates)], [0, max(rates)], label="every request answered at once", **OFFERED)
        above.plot(rates, answered, marker="o", markersize=9, label=f"measured, at best {best:,.0f}/s", **QUEUE)
        above.set(ylabel="answers a second", ylim=(0, 1.1 * max(rates)))
        for column, (name, look) in enumerate((("median", QUEUE | {"marker": "o"}), ("p99", NAIVE | {"marker": "s"}))):
            below.plot(rates, measured[:, column], markersize=9, label=f"{name}, measured", **look)
            thin = {"linewidth": 1.5, "linestyle": ":", "color": look["color"], "marker": "x"}
            below.plot(rates, expected[:, column], label=f"{name}, theory", **thin)
        if limit_s is not None:
            below.axhline(limit_s, color=GREEN, linewidth=2.5, linestyle="-.", label=f"promise: {limit_s * 1000:g} ms")
        below.set(xlabel="offered, requests a second", ylabel="time to the answer, s", yscale="log", xlim=(0, None))
    points = zip(rates, answered, measured, strict=True)
    alt = "Throughput and latency against offered load. " + " ".join(
        f"{rate:,.0f}/s: {good:,.0f}/s answered, median {duration(half)}, p99 {duration(most)}."
        for rate, good, (half, most) in points
    )
    one = steps[0]
    caption = f"{one.variant}, {one.delay_s * 1000:g} ms a job, {one.seconds:g} s a step, {one.shape} arrivals."
    caption += doubtful({f"{it.offered_per_s:,.0f}/s": it.summary.doubt for it in steps})
    return AccessibleFigure(figure, alt + predicted(" The promise is {:g} s.", limit_s), caption)


def distances(
    runs: Sequence[Acceptance], *, median_ms: float | None = None, calls_per_job: float | None = None
) -> AccessibleFigure:
    """Draw runs that differ in the distance of the store.

    ``median_ms`` and ``calls_per_job`` are predictions for the farthest one.
    """
    at = [1000 * one.round_trip_s for one in runs]
    title = "Time to the 202, and REST calls a job, by the distance of the store"
    with drawing(2, height=8.5, title=title, sharex=True) as (figure, (times, calls)):
        _curves(times, calls, at, runs, beside=True)
        times.plot(at, at, label="one round trip", **OFFERED)
        if median_ms is not None:
            times.plot(at[-1:], [median_ms], label="predicted median", **GUESS)
        if calls_per_job is not None:
            calls.plot(at[-1:], [calls_per_job], label="predicted", **GUESS)
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
        axes.xaxis.set_major_formatter("{x:g}")


def _text(names: Sequence[str], runs: Sequence[Acceptance]) -> str:
    return " ".join(
        f"{name}: median {duration(one.p50_ms / 1000)}, p99 {duration(one.p99_ms / 1000)},"
        f" {one.calls_per_job:.2f} calls a job."
        for name, one in zip(names, runs, strict=True)
    )


def _load(runs: Sequence[Acceptance]) -> str:
    """Return the load of the runs as a sentence, and what is doubtful about it."""
    text = f"Measured now: {runs[0].load.planned:,} requests a run at {runs[0].rate_per_s:,.0f}/s."
    lost = [f"{it.name or it.max_batch}: {it.load.accepted:,} accepted" for it in runs if not it.load.all_accepted]
    text += f" Not all accepted: {'; '.join(lost)}." if lost else ""
    return text + doubtful({it.name or str(it.max_batch): it.load.doubt for it in runs})
