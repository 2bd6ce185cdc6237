"""Figures of kills: single jobs around a kill, the rates over time, and the ledger under three designs."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from overload_demo.lab.colours import BLUE, GREEN, GREY, ORANGE, PREDICTED, QUEUE, SKY
from overload_demo.lab.crashes import CrashResult, JobRuns, KillSeen, Run
from overload_demo.lab.plots.accessible_figure import SINCE, AccessibleFigure, drawing, legend, thousands

BAR = 0.75
MARGIN_S = 0.02
_RAN, _LOST, _CUT, _AGAIN = "ran once", "ran, result not stored", "interrupted", "runs again"
_LATE = "leased before, runs once"
_LOOKS: dict[str, dict[str, Any]] = {
    _RAN: {"facecolor": BLUE},
    _LATE: {"facecolor": SKY, "edgecolor": BLUE, "linewidth": 1.5},
    _LOST: {"facecolor": "white", "edgecolor": ORANGE, "linewidth": 2},
    _CUT: {"facecolor": ORANGE, "edgecolor": "black", "linewidth": 1.5},
    _AGAIN: {"facecolor": "white", "edgecolor": GREEN, "linewidth": 2, "hatch": "////"},
}


def lives(result: CrashResult) -> AccessibleFigure:
    """Draw the jobs around the first kill of a worker, a line each, in the order of their first start.

    Seconds count from the kill. A job that was done before the kill, but whose result was not stored yet, is done
    again like the interrupted one: the queue cannot distinguish them.
    """
    killed = [kill for kill in result.kills if kill.part == "worker"]
    if not killed or not result.lives:
        with drawing(title="No worker was killed in this run") as (figure, _):
            return AccessibleFigure(figure, "An empty figure: no worker was killed in this run.")
    kill = killed[0]
    title = f"One kill: {kill.held} jobs were leased, {kill.again} of them had been started and are done again"
    with drawing(1, 2, height=9, title=title, sharey=True) as (figure, (before, after)):
        for axes in (before, after):
            for row, life in enumerate(result.lives):
                _life(axes, row, life, kill)
            axes.set(xlabel="seconds after the kill", ylim=(len(result.lives), -1), yticks=[])
            axes.locator_params(axis="x", nbins=5)
        before.axvline(0, color="black", linewidth=2)
        before.annotate("kill -9", (0, -1), (-8, -4), textcoords="offset points", va="top", ha="right", weight="bold")
        before.set_ylabel("jobs, in the order of the queue")
        _cut_the_silence_out(before, after, result, kill)
        handles = [Patch(label=name, **look) for name, look in _LOOKS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=13)
    alt = (
        f"{len(result.lives)} jobs, a line each, around a kill of the worker. {kill.held} jobs were leased to it; "
        f"{kill.again} of them had been started and run a second time, the others start for the first time. "
    )
    alt += "" if kill.back_s is None else f"The next job starts {kill.back_s:.2f} s after the kill."
    return AccessibleFigure(figure, alt, "Thin lines: the job waits.")


def _cut_the_silence_out(before: Axes, after: Axes, result: CrashResult, kill: KillSeen) -> None:
    """Show the left axes until just after the kill, the right ones from just before the next start."""
    first_s = min(life.runs[0].started_s for life in result.lives) - kill.at_s
    last_s = max(run.ended_s or run.started_s for life in result.lives for run in life.runs) - kill.at_s
    back_s = kill.back_s or 0.0
    before.set_xlim(first_s - MARGIN_S, MARGIN_S)
    after.set_xlim(back_s - MARGIN_S, max(last_s, back_s) + MARGIN_S)
    before.set_title("before", fontsize=15, loc="left")
    after.set_title(f"... {back_s:.2f} s of silence, then", fontsize=15, loc="left")


def _life(axes: Axes, row: int, life: JobRuns, kill: KillSeen) -> None:
    waits_from_s = life.accepted_s - kill.at_s
    for number, run in enumerate(life.runs):
        start_s = run.started_s - kill.at_s
        axes.plot([waits_from_s, start_s], [row, row], color=GREY, linewidth=0.8, alpha=0.6)
        is_last = number == len(life.runs) - 1
        # an interrupted run ended with a kill: the first one, or a later one beyond the figure
        end_s = max(start_s, 0.0) if run.ended_s is None else run.ended_s - kill.at_s
        look = _LOOKS[_AGAIN if number else _first_look(run, is_last)]
        axes.barh([row], [end_s - start_s], left=[start_s], height=BAR, **look)
        waits_from_s = end_s


def _first_look(run: Run, is_last: bool) -> str:
    if is_last:
        return _RAN if run.attempt == 1 else _LATE
    return _CUT if run.ended_s is None else _LOST


def recovery(result: CrashResult, *, back_s: float | None = None) -> AccessibleFigure:
    """Draw accepted and done jobs a second over time, with each kill and, shaded, the silence after it.

    ``back_s`` is a predicted length of that silence, seconds, drawn after each kill.
    """
    spike, kills = result.spike, []
    title = f"{_kills(result)}: {spike.accepted:,} of {spike.offered:,} accepted, {spike.lost:,} lost"
    with drawing(2, height=8, title=title, sharex=True) as (figure, (accepted, done)):
        at_s = [number * result.bucket_s for number in range(len(result.done_per_s) + 1)]
        for axes, rates, name in ((accepted, result.accepted_per_s, "accepted"), (done, result.done_per_s, "done")):
            axes.stairs(rates, at_s, label=name, **QUEUE)
            axes.set_ylim(bottom=0)
            axes.set_ylabel(f"{name}, per second")
            thousands(axes.yaxis)
            _mark_kills(axes, result, back_s)
        for number, kill in enumerate(result.kills):
            text = f"{kill.part} killed" + ("" if kill.back_s is None else f", {kill.back_s:.2f} s")
            look: dict[str, Any] = {"fontsize": 13, "color": ORANGE, "weight": "bold"}
            place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            accepted.annotate(text, (kill.at_s, 1), (4, 8 + 20 * (number % 2)), **place, **look)
            back = "" if kill.back_s is None else f", back after {kill.back_s:.2f} s"
            kills.append(f"{kill.part} at {kill.at_s:.1f} s{back}")
        done.set_xlabel(SINCE)
    alt = (
        f"Accepted and done a second over time. Kills: {'; '.join(kills) or 'none'}. {spike.accepted:,} of "
        f"{spike.offered:,} requests were accepted, {spike.done:,} jobs done, {spike.failed:,} failed, "
        f"{spike.lost:,} lost."
    )
    caption = "Line: a kill. Shaded: until the next job starts (worker) or the next 202 (anything else)."
    if back_s is not None:
        alt += f" {back_s:.2f} s of silence were predicted."
        caption += " Dotted: where you predicted its end."
    return AccessibleFigure(figure, alt, caption)


def _kills(result: CrashResult) -> str:
    return f"{len(result.kills)} kill" + ("" if len(result.kills) == 1 else "s")


def _mark_kills(axes: Axes, result: CrashResult, back_s: float | None) -> None:
    for kill in result.kills:
        axes.axvline(kill.at_s, color=ORANGE, linewidth=2.5)
        if kill.back_s is not None:
            axes.axvspan(kill.at_s, kill.at_s + kill.back_s, color=ORANGE, alpha=0.15)
        if back_s is not None:
            axes.axvline(kill.at_s + back_s, **PREDICTED)


def designs(results: Mapping[str, CrashResult], *, twice: Mapping[str, float] | None = None) -> AccessibleFigure:
    """Draw the jobs never charged and charged more than once, by design, from the ledger of each run.

    ``twice`` are predictions of the jobs charged more than once, by design.
    """
    charged = {name: result.charges for name, result in results.items() if result.charges is not None}
    labels, texts = [], []
    with drawing(height=1.5 + 1.6 * len(charged), title="The same kills, counted in the ledger") as (figure, axes):
        for row, (name, charges) in enumerate(charged.items()):
            _bar(axes, row - 0.2, charges.never, BLUE, "")
            _bar(axes, row + 0.2, charges.more, ORANGE, "///")
            result = results[name]
            labels.append(f"{name}\n{charges.once:,} of {result.spike.accepted:,} charged once")
            texts.append(
                f"{name}: of {result.spike.accepted:,} accepted jobs, {charges.never:,} were never charged, "
                f"{charges.once:,} once, {charges.more:,} more than once, with {_kills(result)}."
            )
            if result.failed_but_charged:
                texts.append(f"{result.failed_but_charged:,} were charged and reported as failed.")
        axes.barh([0], [0], label="jobs never charged", color=BLUE)
        axes.barh([0], [0], label="jobs charged more than once", color=ORANGE, hatch="///", edgecolor="white")
        for name, jobs in (twice or {}).items():
            look = PREDICTED | {"linestyle": "", "marker": "^", "markersize": 14, "clip_on": False}
            axes.plot([jobs], [list(charged).index(name) + 0.44], label="predicted: more than once", **look)
            texts.append(f"{name}: {jobs:,.0f} charged more than once were predicted.")
        axes.set_yticks(range(len(charged)), labels)
        axes.margins(x=0.08)
        axes.set(xlabel="jobs", ylim=(len(charged) - 0.5, -0.5))
        axes.set_xlim(left=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", visible=False)
        legend(axes)
    return AccessibleFigure(figure, " ".join(texts))


def _bar(axes: Axes, at: float, jobs: int, color: str, hatch: str) -> None:
    axes.barh([at], [jobs], height=0.36, color=color, hatch=hatch, edgecolor="white")
    axes.annotate(f"{jobs:,}", (jobs, at), (6, 0), textcoords="offset points", va="center", weight="bold")
