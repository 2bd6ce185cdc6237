"""The picture of a counterexample: what each process did and was told, from top to bottom, up to the broken promise."""

import textwrap
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes

from overload_demo.lab import BLUE, BOX, GREY, ORANGE, Look
from overload_demo.lab.history import Grading, Step
from overload_demo.lab.plots.accessible_figure import AccessibleFigure, drawing

_LONG = 26  # steps; a longer picture leaves out commands about other jobs, except the last one
_MARKS: dict[str, Look] = {
    "client": {"marker": "o", "color": GREY, "markersize": 8},
    "command": {"marker": "|", "color": "black", "markersize": 11, "markeredgewidth": 2},
    "run": {"marker": "s", "color": BLUE, "markersize": 10},
    "fault": {"marker": "X", "color": ORANGE, "markersize": 14},
}
_ROW_INCHES = 0.34


def counterexample(grading: Grading) -> AccessibleFigure:
    """Draw the play that broke a promise, a column a process and a row a step; without one, a line of text."""
    if grading.status != "broken":
        text = repr(grading)
        with drawing(height=1.4, title=text if len(text) < 95 else text[:92] + "...") as (figure, axes):
            axes.set_axis_off()
        return AccessibleFigure(figure, text, text)
    steps, omitted = _shown(grading)
    lanes = list(dict.fromkeys(["client", *(step.who for step in steps if step.who)]))
    title = f"{grading.file}: {grading.story}"
    with drawing(height=2.2 + _ROW_INCHES * len(steps), title=title) as (figure, axes):
        axes.set(xlim=(-0.3, len(lanes) - 0.1), ylim=(len(steps) + 1.2, -1.2), xticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        for lane, name in enumerate(lanes):
            axes.text(lane, -0.9, name, weight="bold", ha="center", va="center")
            _lifeline(axes, lane, [(row, step) for row, step in enumerate(steps) if step.who == name], len(steps))
        for row, step in enumerate(steps):
            _step(axes, lanes, row, step)
        _messages(axes, lanes, steps)
        seconds = {int(step.at): row for row, step in reversed(list(enumerate(steps)))}
        axes.set_yticks(list(seconds.values()), [f"{at} s" for at in seconds])
        look: Look = {"weight": "bold", "color": ORANGE, "va": "center", "fontsize": 15}
        axes.text(-0.25, len(steps) + 0.4, textwrap.fill(f"✗ broken here: {grading.broken}", 88), **look)
    words = [f"{step.who} {step.what} {step.told}".strip() for step in steps]
    alt = f"{grading.story}. What happened, in order: {'; '.join(words)}. Broken: {grading.broken}."
    caption = (
        f"Play {grading.plays}. Down: time, simulated; across: processes. Each line is one step: what was sent, and"
        " behind the arrow what came back. Square: the work of a job. Cross: a fault."
    )
    caption += f" {omitted} commands about other jobs are left out." if omitted else ""
    return AccessibleFigure(figure, alt, caption + (f" It printed: {grading.printed}" if grading.printed else ""))


def _shown(grading: Grading) -> tuple[list[Step], int]:
    """Return the steps to draw, and how many were left out."""
    steps = list(grading.steps)
    if len(steps) <= _LONG:
        return steps, 0
    *earlier, last = steps
    kept = [step for step in earlier if step.kind != "command" or grading.job in f"{step.what} {step.told}"] + [last]
    return kept, len(steps) - len(kept)


def _lifeline(axes: Axes, lane: int, own: Sequence[tuple[int, Step]], rows: int) -> None:
    """Draw how long a process lives; dotted while it is stopped."""
    first = -0.5 if lane == 0 else own[0][0]
    since, is_stopped = first, False
    for row, step in [*own, (rows, None)]:
        what = step.what if step else ""
        is_end = step is None or what.startswith("kill")
        if is_end or what in ("SIGSTOP", "SIGCONT"):
            look: Look = {"linestyle": ":", "color": ORANGE} if is_stopped else {"linestyle": "-", "color": GREY}
            until = row if step or lane == 0 or is_stopped else own[-1][0]
            axes.plot([lane, lane], [since, until], linewidth=2, zorder=1, **look)
            since, is_stopped = row, what == "SIGSTOP"
        if is_end:
            return


def _messages(axes: Axes, lanes: Sequence[str], steps: Sequence[Step]) -> None:
    """Draw a client's request to an API and the answer as arrows."""
    look: Look = {"arrowstyle": "->", "color": GREY, "linewidth": 1.2}
    for row, (step, after) in enumerate(pairwise(steps)):
        is_sent = step.what.startswith("submit") and after.who.startswith("API")
        is_answered = step.who.startswith("API") and after.who == "client" and not after.what
        if is_sent or is_answered:
            ends = (lanes.index(step.who), row), (lanes.index(after.who), row + 1)
            axes.annotate("", ends[1], ends[0], arrowprops=look, zorder=1)


def _step(axes: Axes, lanes: Sequence[str], row: int, step: Step) -> None:
    if not step.who:
        axes.axhspan(row - 0.4, row + 0.4, color=GREY, alpha=0.15)
        axes.text(0.06, row, step.what, va="center", color=GREY)
        return
    lane = lanes.index(step.who)
    axes.plot([lane], [row], linestyle="", zorder=3, **_MARKS[step.kind])
    text = " → ".join(filter(None, [step.what, step.told]))
    look: Look = {"color": ORANGE, "weight": "bold"} if step.kind == "fault" else {"color": "black"}
    is_right = lane > 0 and lane == len(lanes) - 1
    place = lane - 0.06 if is_right else lane + 0.06
    align = "right" if is_right else "left"
    axes.text(place, row, text, va="center", ha=align, fontsize=12, family="monospace", bbox=BOX, zorder=2, **look)
