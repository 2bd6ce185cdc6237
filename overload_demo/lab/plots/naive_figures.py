"""Figures of the naive API: goodput, waits and outcomes under rising load, the load after an overload, the variants."""

import math
from collections.abc import Sequence
from typing import Any

from overload_demo.errors import ConfigurationError
from overload_demo.lab.baseline import VARIANTS, BaselineRun, note_on
from overload_demo.lab.colours import BLUE, GREEN, GREY, NAIVE, OFFERED, ORANGE, PREDICTED, PURPLE, QUEUE, YELLOW
from overload_demo.lab.naive_api import LoadStep
from overload_demo.lab.plots.accessible_figure import AccessibleFigure, drawing, legend, thousands
from overload_demo.lab.theory import capacity_per_s
from overload_demo.load.machine import Environment

# One look a step, from the lowest rate to the highest: colour, dash and marker all differ.
_STEPS: list[dict[str, Any]] = [
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": GREEN, "linestyle": (0, (6, 2)), "marker": "s"},
    {"color": GREY, "linestyle": (0, (1, 1.5)), "marker": "^"},
    {"color": PURPLE, "linestyle": (0, (4, 1.5, 1, 1.5)), "marker": "D"},
    {"color": ORANGE, "linestyle": (0, (2, 1)), "marker": "v"},
]
# One look an outcome, by the names of the load generator.
_OUTCOMES: dict[str, dict[str, Any]] = {
    "answered": {"color": BLUE, "hatch": ""},
    "read timeout": {"color": ORANGE, "hatch": "//"},
    "connect timeout": {"color": PURPLE, "hatch": "xx"},
    "reset": {"color": GREEN, "hatch": ".."},
    "disconnected": {"color": YELLOW, "hatch": "||"},
}
_OTHER: dict[str, Any] = {"color": GREY, "hatch": "\\\\"}
_VARIANTS: dict[str, dict[str, Any]] = {
    "async-blocking": {"color": GREEN, "hatch": ".."},
    "def-slot": {"color": ORANGE, "hatch": "//"},
    "def-no-slot": {"color": BLUE, "hatch": ""},
}
_BOX: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 2}


def goodput(
    steps: Sequence[LoadStep], *, breaks_at_per_s: float | None = None, last_per_s: float | None = None
) -> AccessibleFigure:
    """Draw answers in time a second against requests a second, a point a step, with y = x and one slot's capacity.

    ``breaks_at_per_s`` (the offered rate where it breaks) and ``last_per_s`` (goodput at the highest step) are
    predictions. Raises :class:`ConfigurationError` without a step.
    """
    _check(steps)
    offered, good = [one.offered_per_s for one in steps], [one.goodput_per_s for one in steps]
    capacity = capacity_per_s(steps[0].delay_s)
    points = "; ".join(f"{value:,.0f}/s at {rate:,.0f}/s" for rate, value in zip(offered, good, strict=True))
    alt = f"Goodput against offered rate: {points}. One slot can do {capacity:,.0f}/s."
    title = f"Best {max(good):,.0f}/s; at {offered[-1]:,.0f}/s offered, {good[-1]:,.0f}/s answered in time"
    with drawing(height=6.5, title=title) as (figure, axes):
        top = 1.35 * max(capacity, *good)
        axes.plot([0, top], [0, top], label="every request answered", **OFFERED)
        axes.axhline(capacity, color=GREEN, linewidth=2, linestyle=(0, (6, 2)), label=f"one slot: {capacity:,.0f}/s")
        axes.plot(offered, good, marker="o", markersize=9, label="naive API, answered in time", **NAIVE)
        if breaks_at_per_s is not None:
            axes.axvline(breaks_at_per_s, label="predicted: breaks here", **PREDICTED)
            alt += f" It was predicted to break at {breaks_at_per_s:,.0f}/s."
        if last_per_s is not None:
            look = PREDICTED | {"linestyle": "none", "marker": "X", "markersize": 15}
            axes.plot([offered[-1]], [last_per_s], label="predicted: last step", **look)
            alt += f" {last_per_s:,.0f}/s were predicted for the last step."
        for rate, value in zip(offered, good, strict=True):
            axes.annotate(f"{value:,.0f}", (rate, value), textcoords="offset points", xytext=(8, 9), bbox=_BOX)
        axes.set(xlabel="offered, requests a second", ylabel="goodput, answers in time a second", xlim=0)
        axes.set_ylim(0, max(top, 1.1 * min(last_per_s or 0, 3 * capacity)))
        thousands(axes.xaxis)
        legend(axes, columns=3)
    return AccessibleFigure(figure, alt, _conditions(steps))


def ccdf(steps: Sequence[LoadStep]) -> AccessibleFigure:
    """Draw the share of clients that still wait after a time, a curve a step, both axes logarithmic.

    The share counts all requests of a step: a curve that ends flat ends at the share that never got an answer. Raises
    :class:`ConfigurationError` without a step.
    """
    _check(steps)
    timeout_s, texts = steps[0].timeout_s, []
    with drawing(height=6.5, title="How many clients still wait after so long?") as (figure, axes):
        for number, one in enumerate(steps):
            never = 1 - one.answered / one.planned
            times_s, shares = [*one.times_s, timeout_s], [*one.unanswered, never]
            # without failures the last share is 0, which a log axis cannot show
            points = [(at_s, share) for at_s, share in zip(times_s, shares, strict=True) if share > 0]
            text = f"{one.offered_per_s:,.0f}/s: {100 * never:.0f} % never answered"
            look = {"linewidth": 2.5, "markevery": 0.13, "markersize": 8} | _STEPS[number % len(_STEPS)]
            axes.plot(*zip(*points, strict=True), label=text, **look)
            times = one.response_time
            texts.append(f"{text}, half of the rest within {times.p50_s * 1000:,.0f} ms." if times else f"{text}.")
        axes.axvline(timeout_s, color="black", linewidth=2, label=f"clients give up: {timeout_s:g} s")
        axes.set(xscale="log", yscale="log", xlabel="seconds since the request was due", ylabel="share still waiting")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_ylim(top=1.3)
        legend(axes, columns=3)
    alt = "Share of clients still waiting against time, a curve a step. " + " ".join(texts)
    return AccessibleFigure(figure, alt, _conditions(steps))


def endings(steps: Sequence[LoadStep]) -> AccessibleFigure:
    """Draw how the requests of each step ended, stacked to 100 %.

    Raises :class:`ConfigurationError` without a step.
    """
    _check(steps)
    names = list(dict.fromkeys(["answered", *(name for one in steps for name in one.outcomes)]))
    with drawing(height=6, title="How did the requests end?") as (figure, axes):
        below = [0.0] * len(steps)
        for name in names:
            shares = [100 * one.outcomes.get(name, 0) / one.planned for one in steps]
            look = _OUTCOMES.get(name, _OTHER)
            bars = axes.bar(range(len(steps)), shares, 0.65, bottom=below, label=name, edgecolor="white", **look)
            labels = [f"{share:.0f} %" if share >= 4 else "" for share in shares]
            for text in axes.bar_label(bars, labels, label_type="center", fontsize=14):
                text.set_bbox(_BOX if text.get_text() else None)
            below = [low + share for low, share in zip(below, shares, strict=True)]
        axes.set_xticks(range(len(steps)), [f"step {n}\n{one.offered_per_s:,.0f}/s" for n, one in enumerate(steps, 1)])
        axes.set(ylabel="% of the step's requests", ylim=(0, 100))
        axes.grid(visible=False, axis="x")
        legend(axes)
    alt = "How the requests of each step ended. " + " ".join(
        f"{one.offered_per_s:,.0f}/s: " + ", ".join(f"{count:,} {name}" for name, count in one.outcomes.items()) + "."
        for one in steps
    )
    return AccessibleFigure(figure, alt, _conditions(steps))


def spoiled(steps: Sequence[LoadStep]) -> AccessibleFigure:
    """Draw the first and the last of steps on one server: equal load, once fresh, once after an overload.

    Raises :class:`ConfigurationError` unless the first step met a fresh server and the last one the same server with
    the same load.
    """
    _check(steps)
    first, last = steps[0], steps[-1]
    if not first.on_a_fresh_server or last.on_a_fresh_server or first.offered_per_s != last.offered_per_s:
        raise ConfigurationError("compare a load on a fresh server with the same load later on that server")
    both = f"{first.answered:,} answered, then {last.answered:,} of {last.planned:,}"
    with drawing(height=5.5, title=f"The same {first.offered_per_s:,.0f}/s: {both}") as (figure, axes):
        later = f"after the overload: {last.backlog_before:,} abandoned requests are first"
        for step, label, look in (
            (first, "fresh server", QUEUE | {"marker": "o"}),
            (last, later, NAIVE | {"marker": "v"}),
        ):
            middles_s = [(number + 0.5) * step.bucket_s for number in range(len(step.bucket_answered_per_s))]
            axes.plot(middles_s, step.bucket_answered_per_s, label=label, markersize=9, **look)
        axes.axhline(first.offered_per_s, label="offered", **OFFERED)
        axes.set(xlabel="seconds since this load began", ylabel="answers in time a second")
        axes.set_ylim(-0.03 * first.offered_per_s, 1.25 * max(first.offered_per_s, *first.bucket_answered_per_s))
        legend(axes, columns=3)
    alt = (
        f"Answers a second over time, twice under {first.offered_per_s:,.0f} requests a second. On a fresh server"
        f" {first.answered:,} of {first.planned:,} were answered in time; after an overload had left"
        f" {last.backlog_before:,} requests behind, {last.answered:,} of {last.planned:,}. Meanwhile the app completed"
        f" {last.completed:,} jobs, {last.wasted:,} of them after their clients had left."
    )
    return AccessibleFigure(figure, alt, _conditions(steps))


def _check(steps: Sequence[LoadStep]) -> None:
    if not steps:
        raise ConfigurationError("there is no step to draw")


def _conditions(steps: Sequence[LoadStep]) -> str:
    one = steps[0]
    doubtful = [f"{step.offered_per_s:,.0f}/s ({step.reason})" for step in steps if step.verdict != "valid"]
    text = (
        f"Measured now, on this machine: {one.variant}, {one.delay_s * 1000:g} ms a job,"
        f" {one.seconds:g} s a step, clients give up after {one.timeout_s:g} s."
    )
    return text + (f" Generator-bound, read with care: {'; '.join(doubtful)}." if doubtful else "")


def variants(runs: Sequence[BaselineRun], here: Environment) -> AccessibleFigure:
    """Draw the share of requests answered in time from recorded runs, a group of bars a load, a bar a variant.

    Shares can be read beside a run on another machine; rates cannot. The caption names date and machine of the
    recording, and whether that differs from ``here``, the machine of the live runs.
    Raises :class:`ConfigurationError` for no runs, and for runs of different work, time-outs or machines.
    """
    _check_equal(runs)
    found = {(str(run.shape), run.rate_per_s, run.variant): run for run in runs}
    loads = sorted({(shape, rate) for shape, rate, _ in found}, key=lambda load: (load[0] == "spike", load[1]))
    with drawing(height=6.5, title="Answered in time: three ways to write the naive API") as (figure, axes):
        for place, variant in enumerate(VARIANTS):
            there = [found.get((*load, variant)) for load in loads]
            shares = [100 * run.summary.accepted / run.summary.planned if run else math.nan for run in there]
            at = [group + (place - 1) * 0.27 for group in range(len(loads))]
            bars = axes.bar(at, shares, 0.25, label=variant, edgecolor="white", **_VARIANTS[variant])
            texts = ["" if math.isnan(share) else f"{share:.0f} %" for share in shares]
            axes.bar_label(bars, texts, fontsize=13, padding=2)
        axes.set_xticks(range(len(loads)), [f"{rate:,.0f}/s\n{shape}" for shape, rate in loads])
        axes.set(ylabel="answered in time, % of requests", ylim=(0, 112), yticks=range(0, 101, 20))
        axes.grid(visible=False, axis="x")
        legend(axes)
    names = {id(run): f"{run.variant} at {run.rate_per_s:,.0f}/s {run.shape}" for run in runs}
    counts = (f"{names[id(run)]}: {run.summary.accepted:,} of {run.summary.planned:,}." for run in runs)
    one, machine, note = runs[0], runs[0].summary.environment, note_on(runs[0], here)
    caption = (
        f"{note[0].upper()}{note[1:]}. The machine: {machine.processor}, {machine.cores} cores. The load:"
        f" {one.delay_s * 1000:g} ms a job, clients give up after {one.timeout_s:g} s."
    )
    doubtful = [names[id(run)] for run in runs if run.summary.verdict != "valid"]
    caption += f" Generator-bound, read with care: {', '.join(doubtful)}." if doubtful else ""
    return AccessibleFigure(figure, "Requests answered in time. " + " ".join(counts), caption)


def _check_equal(runs: Sequence[BaselineRun]) -> None:
    if not runs:
        raise ConfigurationError("no recorded baseline: python -m experiments.record_baseline records one")
    where = [run.summary.environment for run in runs]
    work = {(run.delay_s, run.timeout_s) for run in runs}
    if len(work) > 1 or not all(it.is_like(where[0]) for it in where):
        raise ConfigurationError("these runs had different work, time-outs or machines: no fair comparison")
