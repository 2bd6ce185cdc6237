"""Figures of failures: the naive API under rising load, and a stack whose parts are killed."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from overload_demo.errors import ConfigurationError
from overload_demo.lab import (
    BLUE,
    CURVES,
    GREEN,
    GREY,
    GUESS,
    NAIVE,
    OFFERED,
    ORANGE,
    PREDICTED,
    QUEUE,
    SINCE,
    SKY,
    Look,
)
from overload_demo.lab.crashes import CrashResult, JobRuns, KillSeen
from overload_demo.lab.naive_api import LoadStep, note_on
from overload_demo.lab.plots.accessible_figure import AccessibleFigure, bars, doubtful, drawing, note, predicted
from overload_demo.lab.result import VARIANTS, BaselineRun
from overload_demo.lab.theory import capacity_per_s
from overload_demo.load.machine import Environment
from overload_demo.load.plan import duration

# The order of the bars' looks, so that an outcome has the same one in each figure.
_OUTCOMES = ("answered", "read timeout", "connect timeout", "reset", "disconnected")
_BUCKET_S, _MARGIN_S = 0.1, 0.02
_RAN, _LATE = "ran once", "leased before, runs once"
_LOST, _CUT, _AGAIN = "ran, result not stored", "interrupted", "runs again"
_LOOKS: dict[str, Look] = {
    _RAN: {"facecolor": BLUE},
    _LATE: {"facecolor": SKY, "edgecolor": BLUE, "linewidth": 1.5},
    _LOST: {"facecolor": "white", "edgecolor": ORANGE, "linewidth": 2},
    _CUT: {"facecolor": ORANGE, "edgecolor": "black", "linewidth": 1.5},
    _AGAIN: {"facecolor": "white", "edgecolor": GREEN, "linewidth": 2, "hatch": "////"},
}


def goodput(
    steps: Sequence[LoadStep], *, breaks_at_per_s: float | None = None, last_per_s: float | None = None
) -> AccessibleFigure:
    """Draw answers in time a second against requests a second, a point a step, with y = x and one slot's capacity.

    ``breaks_at_per_s`` (the offered rate where it breaks) and ``last_per_s`` (goodput at the highest step) are
    predictions.
    """
    caption = _conditions(steps)
    points = [(one.offered_per_s, one.goodput_per_s) for one in steps]
    (last_offered, last_good), best = points[-1], max(good for _, good in points)
    capacity = capacity_per_s(steps[0].delay_s)
    title = f"Best {best:,.0f}/s; at {last_offered:,.0f}/s offered, {last_good:,.0f}/s answered in time"
    with drawing(height=6.5, title=title) as (figure, axes):
        top = 1.35 * max(capacity, best)
        axes.plot([0, top], [0, top], label="every request answered", **OFFERED)
        axes.axhline(capacity, color=GREEN, linewidth=2, linestyle=(0, (6, 2)), label=f"one slot: {capacity:,.0f}/s")
        axes.plot(*zip(*points, strict=True), marker="o", markersize=9, label="naive API, answered in time", **NAIVE)
        if breaks_at_per_s is not None:
            axes.axvline(breaks_at_per_s, label="predicted: breaks here", **PREDICTED)
        if last_per_s is not None:
            axes.plot([last_offered], [last_per_s], label="predicted: last step", **GUESS | {"clip_on": True})
        for rate, good in points:
            note(axes, f"{good:,.0f}", (rate, good), (8, 9))
        top = max(top, 1.1 * min(last_per_s or 0, 3 * capacity))
        axes.set(xlabel="offered, requests a second", ylabel="goodput, answers in time a second")
        axes.set(xlim=(0, None), ylim=(0, top))
    measured = "; ".join(f"{good:,.0f}/s at {rate:,.0f}/s" for rate, good in points)
    alt = f"Goodput against offered rate: {measured}. One slot can do {capacity:,.0f}/s."
    alt += predicted("It was predicted to break at {:,.0f}/s.", breaks_at_per_s)
    return AccessibleFigure(figure, alt + predicted("{:,.0f}/s were predicted for the last step.", last_per_s), caption)


def ccdf(steps: Sequence[LoadStep]) -> AccessibleFigure:
    """Draw the share of clients that still wait after a time, a curve a step, both axes logarithmic.

    The share counts all requests of a step: a curve that ends flat ends at the share that never got an answer.
    """
    caption, texts = _conditions(steps), []
    timeout_s = steps[0].timeout_s
    with drawing(height=6.5, title="How many clients still wait after so long?") as (figure, axes):
        for one, look in zip(steps, cycle(CURVES)):
            never = 1 - one.answered / one.planned
            times_s = np.append(one.response_s, timeout_s)
            shares = np.append(1 - np.arange(1, one.answered + 1) / one.planned, never)
            text = f"{one.offered_per_s:,.0f}/s: {100 * never:.0f} % never answered"
            marked = {"linewidth": 2.5, "markevery": 0.13, "markersize": 8}
            axes.plot(times_s[shares > 0], shares[shares > 0], label=text, **marked, **look)  # a log axis has no 0
            times = one.summary.response_time
            texts.append(f"{text}, half of the rest within {duration(times.p50_s)}." if times else f"{text}.")
        axes.axvline(timeout_s, color="black", linewidth=2, label=f"clients give up: {timeout_s:g} s")
        axes.set(xscale="log", yscale="log", xlabel="seconds since the request was due", ylabel="share still waiting")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_ylim(top=1.3)
    alt = "Share of clients still waiting against time, a curve a step. " + " ".join(texts)
    return AccessibleFigure(figure, alt, caption)


def endings(steps: Sequence[LoadStep]) -> AccessibleFigure:
    """Draw how the requests of each step ended, a bar a step, stacked to 100 %."""
    caption = _conditions(steps)
    names = dict.fromkeys([*_OUTCOMES, *(name for one in steps for name in one.outcomes)])
    shares = {name: [100 * one.outcomes.get(name, 0) / one.planned for one in steps] for name in names}
    rows = [f"step {number}\n{one.offered_per_s:,.0f}/s" for number, one in enumerate(steps, 1)]
    with drawing(height=6, title="How did the requests end?") as (figure, axes):
        bars(axes, rows, shares, lambda share: f"{share:.0f} %" if share >= 4 else "")
        axes.set(xlabel="% of the step's requests", xlim=(0, 100))
    alt = "How the requests of each step ended. " + " ".join(
        f"{one.offered_per_s:,.0f}/s: " + ", ".join(f"{count:,} {name}" for name, count in one.outcomes.items()) + "."
        for one in steps
    )
    return AccessibleFigure(figure, alt, caption)


def spoiled(steps: Sequence[LoadStep]) -> AccessibleFigure:
    """Draw the first and the last of steps on one server: equal load, once fresh, once after an overload."""
    caption, first, last = _conditions(steps), steps[0], steps[-1]
    rate, backlog = first.offered_per_s, last.backlog_before
    if not first.on_a_fresh_server or last.on_a_fresh_server or rate != last.offered_per_s:
        raise ConfigurationError("compare a load on a fresh server with the same load later on that server")
    labels = "fresh server", f"after the overload: {backlog:,} abandoned requests are first"
    looks = QUEUE | {"marker": "o"}, NAIVE | {"marker": "v"}
    both = f"{first.answered:,} answered, then {last.answered:,} of {last.planned:,}"
    with drawing(height=5.5, title=f"The same {rate:,.0f}/s: {both}") as (figure, axes):
        for step, label, look in zip((first, last), labels, looks, strict=True):
            middles_s = (np.arange(len(step.answered_per_s)) + 0.5) * step.seconds / len(step.answered_per_s)
            axes.plot(middles_s, step.answered_per_s, markersize=9, label=label, **look)
        axes.axhline(rate, label="offered", **OFFERED)
        ylim = -0.03 * rate, 1.25 * max(rate, *first.answered_per_s)
        axes.set(xlabel="seconds since this load began", ylabel="answers in time a second", ylim=ylim)
    alt = (
        f"Answers a second over time, twice under {rate:,.0f} requests a second. On a fresh server"
        f" {first.answered:,} of {first.planned:,} were answered in time; after an overload had left"
        f" {backlog:,} requests behind, {last.answered:,} of {last.planned:,}. Meanwhile the app completed"
        f" {last.completed:,} jobs, {last.wasted:,} of them after their clients had left."
    )
    return AccessibleFigure(figure, alt, caption)


def _conditions(steps: Sequence[LoadStep]) -> str:
    """Return the caption of steps. Raises :class:`ConfigurationError` without one."""
    if not steps:
        raise ConfigurationError("there is no step to draw")
    one = steps[0]
    text = (
        f"Measured now, on this machine: {one.variant}, {one.delay_s * 1000:g} ms a job,"
        f" {one.seconds:g} s a step, clients give up after {one.timeout_s:g} s."
    )
    return text + doubtful({f"{it.offered_per_s:,.0f}/s": it.summary.doubt for it in steps})


def variants(runs: Sequence[BaselineRun], here: Environment) -> AccessibleFigure:
    """Draw the share of requests answered in time from recorded runs, a group of bars a load, a bar a variant.

    Shares can be read beside a run on another machine; rates cannot. The caption names date and machine of the
    recording, and whether that differs from ``here``, the machine of the live runs. All runs must have equal work,
    time-outs and machines.
    """
    if not runs:
        raise ConfigurationError("no recorded baseline: python -m experiments.record_baseline records one")
    one, machine, recorded = runs[0], runs[0].summary.environment, note_on(runs[0], here)
    equal_work = len({(run.delay_s, run.timeout_s) for run in runs}) == 1
    if not equal_work or not all(run.summary.environment.is_like(machine) for run in runs):
        raise ConfigurationError("these runs had different work, time-outs or machines: no fair comparison")
    found = {(str(run.shape), run.rate_per_s, run.variant): run for run in runs}
    loads = sorted({(shape, rate) for shape, rate, _ in found}, key=lambda load: (load[0] == "spike", load[1]))
    with drawing(height=6.5, title="Answered in time: three ways to write the naive API") as (figure, axes):
        rows = [f"{rate:,.0f}/s\n{shape}" for shape, rate in loads]
        shares: dict[str, list[float]] = {
            variant: [_share(found.get((*load, variant))) for load in loads] for variant in VARIANTS
        }
        bars(axes, rows, shares, lambda at: "" if math.isnan(at) else f"{at:.0f} %", beside=True)
        axes.set(xlabel="answered in time, % of requests", xlim=(0, 109), xticks=range(0, 101, 20))
    names = [f"{run.variant} at {run.rate_per_s:,.0f}/s {run.shape}" for run in runs]
    both = list(zip(names, (run.summary for run in runs), strict=True))
    counts = " ".join(f"{name}: {summary.accepted:,} of {summary.planned:,}." for name, summary in both)
    caption = (
        f"{recorded[0].upper()}{recorded[1:]}. The machine: {machine.processor}, {machine.cores} cores. The load:"
        f" {one.delay_s * 1000:g} ms a job, clients give up after {one.timeout_s:g} s."
    )
    caption += doubtful({name: summary.doubt for name, summary in both})
    return AccessibleFigure(figure, f"Requests answered in time. {counts}", caption)


def _share(run: BaselineRun | None) -> float:
    return 100 * run.summary.accepted / run.summary.planned if run else math.nan


def lives(result: CrashResult) -> AccessibleFigure:
    """Draw the jobs around the first kill of a worker, a line each, in the order of their first start.

    Seconds count from the kill. A job that was done before the kill, but whose result was not stored yet, is done
    again like the interrupted one: the queue cannot distinguish them.
    """
    kill = next((kill for kill in result.kills if kill.part == "worker"), None)
    if kill is None or not result.lives:
        with drawing(title="No worker was killed in this run") as (figure, _):
            return AccessibleFigure(figure, "An empty figure: no worker was killed in this run.")
    title = f"One kill: {kill.held} jobs were leased, {kill.again} of them had been started and are done again"
    first_s = min(life.runs[0].started_s for life in result.lives) - kill.at_s
    last_s = max(run.ended_s or run.started_s for life in result.lives for run in life.runs) - kill.at_s
    back_s = kill.back_s or 0.0
    with drawing(1, 2, height=9, title=title, sharey=True) as (figure, (before, after)):
        for axes in (before, after):
            for row, life in enumerate(result.lives):
                _life(axes, row, life, kill)
            axes.set(xlabel="seconds after the kill", ylim=(len(result.lives), -1), yticks=[])
            axes.locator_params(axis="x", nbins=5)
        before.axvline(0, color="black", linewidth=2)
        note(before, "kill -9", (0, -1), (-8, -4), va="top", ha="right", weight="bold")
        before.set(ylabel="jobs, in the order of the queue", xlim=(first_s - _MARGIN_S, _MARGIN_S))
        before.set_title("before", fontsize=15)
        after.set_xlim(back_s - _MARGIN_S, max(last_s, back_s) + _MARGIN_S)
        after.set_title(f"... {back_s:.2f} s of silence, then", fontsize=15)
        handles = [Patch(label=name, **look) for name, look in _LOOKS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=5)
    alt = (
        f"{len(result.lives)} jobs, a line each, around a kill of the worker. {kill.held} jobs were leased to it; "
        f"{kill.again} of them had been started and run a second time, the others start for the first time."
    )
    alt += predicted("The next job starts {:.2f} s after the kill.", kill.back_s)
    return AccessibleFigure(figure, alt, "Thin lines: the job waits.")


def _life(axes: Axes, row: int, life: JobRuns, kill: KillSeen) -> None:
    waits_from_s = life.accepted_s - kill.at_s
    for run in life.runs:
        start_s = run.started_s - kill.at_s
        axes.plot([waits_from_s, start_s], [row, row], color=GREY, linewidth=0.8, alpha=0.6)
        # an interrupted run ended with a kill: the first one, or a later one beyond the figure
        end_s = max(start_s, 0.0) if run.ended_s is None else run.ended_s - kill.at_s
        name = _CUT if run.ended_s is None else _LOST
        if run is not life.runs[0]:
            name = _AGAIN
        elif run is life.runs[-1]:
            name = _RAN if run.attempt == 1 else _LATE
        axes.barh([row], [end_s - start_s], left=[start_s], height=0.75, **_LOOKS[name])
        waits_from_s = end_s


def recovery(result: CrashResult, *, back_s: float | None = None) -> AccessibleFigure:
    """Draw accepted and done jobs a second over time, with each kill and, shaded, the silence after it.

    ``back_s`` is a predicted length of that silence, seconds, drawn after each kill.
    """
    spike, kills = result.spike, []
    times_s = {"accepted": result.accepted_s, "done": result.done_s}
    edges_s = np.arange(0, max([0.0, *result.accepted_s, *result.done_s]) + 2 * _BUCKET_S, _BUCKET_S)
    title = f"{_kills(result)}: {spike.accepted:,} of {spike.offered:,} accepted, {spike.lost_text}"
    with drawing(2, height=8, title=title, sharex=True) as (figure, both):
        for axes, name in zip(both, times_s, strict=True):
            axes.stairs(np.histogram(times_s[name], edges_s)[0] / _BUCKET_S, edges_s, **QUEUE)
            axes.set(ylabel=f"{name}, per second", ylim=(0, None))
            for kill in result.kills:
                axes.axvline(kill.at_s, color=ORANGE, linewidth=2.5)
                axes.axvspan(kill.at_s, kill.at_s + (kill.back_s or 0), color=ORANGE, alpha=0.15)
                if back_s is not None:
                    axes.axvline(kill.at_s + back_s, **PREDICTED)
        for number, kill in enumerate(result.kills):
            text = f"{kill.part} killed" + ("" if kill.back_s is None else f", {kill.back_s:.2f} s")
            look = {"fontsize": 13, "color": ORANGE, "weight": "bold", "xycoords": ("data", "axes fraction")}
            note(both[0], text, (kill.at_s, 1), (4, 8 + 20 * (number % 3)), **look)
            back = "" if kill.back_s is None else f", back after {kill.back_s:.2f} s"
            kills.append(f"{kill.part} at {kill.at_s:.1f} s{back}")
        both[1].set_xlabel(SINCE)
    alt = (
        f"Accepted and done a second over time. Kills: {'; '.join(kills) or 'none'}. {spike.accepted:,} of "
        f"{spike.offered:,} requests were accepted, {spike.done:,} jobs done, {spike.failed:,} failed, "
        f"{spike.lost_text}."
    )
    caption = "Line: a kill. Shaded: until the next job starts (worker) or the next 202 (anything else)."
    caption += "" if back_s is None else " Dotted: where you predicted its end."
    return AccessibleFigure(figure, alt + predicted("{:.2f} s of silence were predicted.", back_s), caption)


def _kills(result: CrashResult) -> str:
    return f"{len(result.kills)} kill" + ("" if len(result.kills) == 1 else "s")


def designs(results: Mapping[str, CrashResult], *, twice: Mapping[str, float] | None = None) -> AccessibleFigure:
    """Draw the jobs never charged and charged more than once, by design, from the ledger of each run.

    ``twice`` are predictions of the jobs charged more than once, by design.
    """
    charged = {name: result.charges for name, result in results.items() if result.charges is not None}
    labels, texts = [], []
    for name, charges in charged.items():
        accepted, failed = results[name].spike.accepted, results[name].failed_but_charged
        labels.append(f"{name}\n{charges.once:,} of {accepted:,} charged once")
        texts.append(
            f"{name}: of {accepted:,} accepted jobs, {charges.never:,} were never charged, "
            f"{charges.once:,} once, {charges.more:,} more than once, with {_kills(results[name])}."
        )
        texts += [f"{failed:,} were charged and reported as failed."] if failed else []
    with drawing(height=1.5 + 1.6 * len(charged), title="The same kills, counted in the ledger") as (figure, axes):
        counts = {"never charged": [one.never for one in charged.values()]}
        counts["more than once"] = [one.more for one in charged.values()]
        bars(axes, labels, counts, "{:,}".format, beside=True)
        if twice:  # marks the second bar of a row, which is below its middle
            rows = np.array([list(charged).index(name) for name in twice])
            look = GUESS | {"markeredgecolor": "white", "markeredgewidth": 1.5}
            axes.plot([*twice.values()], rows + 0.21, label="predicted: more than once", **look)
            texts += [f"{name}: {guess:,.0f} charged more than once were predicted." for name, guess in twice.items()]
        axes.margins(x=0.08)
        axes.set(xlabel="jobs", xlim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
    return AccessibleFigure(figure, " ".join(texts))
