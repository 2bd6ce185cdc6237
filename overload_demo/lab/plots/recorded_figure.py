"""The three ways to write the naive API, side by side, from recorded runs."""

import math
from collections.abc import Sequence
from typing import Any

from overload_demo.errors import ConfigurationError
from overload_demo.lab.baseline import VARIANTS, BaselineRun, note_on
from overload_demo.lab.colours import BLUE, GREEN, ORANGE
from overload_demo.lab.plots.accessible_figure import AccessibleFigure, drawing, legend
from overload_demo.load.summary import Environment

_LOOKS: dict[str, dict[str, Any]] = {
    "async-blocking": {"color": GREEN, "hatch": ".."},
    "def-slot": {"color": ORANGE, "hatch": "//"},
    "def-no-slot": {"color": BLUE, "hatch": ""},
}
_Load = tuple[str, float]


def variants(runs: Sequence[BaselineRun], here: Environment) -> AccessibleFigure:
    """The share of requests answered in time, a group of bars a load, a bar a variant.

    A share, because that can be read beside a run on another machine; requests a second cannot. The caption says when
    and where they were recorded, and if that was not ``here``, where the live runs were measured.
    Raises :class:`ConfigurationError` for no runs, and for runs that are no fair comparison: different work, patience
    or machines.
    """
    _comparable(runs)
    found = {(_load(run), run.variant): run for run in runs}
    loads = sorted({load for load, _ in found}, key=lambda load: (load[0] == "spike", load[1]))
    with drawing(height=6.5, title="Who answers in time? Three ways to write the naive API") as (figure, axes):
        for place, variant in enumerate(VARIANTS):
            shares = [_share(found.get((load, variant))) for load in loads]
            at = [group + (place - 1) * 0.27 for group in range(len(loads))]
            bars = axes.bar(at, shares, 0.25, label=variant, edgecolor="white", **_LOOKS[variant])
            axes.bar_label(
                bars, ["" if math.isnan(share) else f"{share:.0f} %" for share in shares], fontsize=13, padding=2
            )
        axes.set_xticks(range(len(loads)), [f"{rate:,.0f}/s\n{shape}" for shape, rate in loads])
        axes.set(ylabel="answered in time, % of requests", ylim=(0, 112), yticks=range(0, 101, 20))
        axes.grid(visible=False, axis="x")
        axes.set_axisbelow(True)
        legend(axes)
    return AccessibleFigure(figure, _in_words(runs), _provenance(runs, here))


def _load(run: BaselineRun) -> _Load:
    return str(run.shape), run.rate_per_s


def _share(run: BaselineRun | None) -> float:
    return 100 * run.summary.accepted / run.summary.planned if run else math.nan


def _comparable(runs: Sequence[BaselineRun]) -> None:
    if not runs:
        raise ConfigurationError("no recorded baseline: python -m experiments.record_baseline records one")
    where = [run.summary.environment for run in runs]
    work = {(run.delay_s, run.timeout_s) for run in runs}
    if len(work) > 1 or not all(it.is_like(where[0]) for it in where):
        raise ConfigurationError("these runs had different work, time-outs or machines: no fair comparison")


def _in_words(runs: Sequence[BaselineRun]) -> str:
    return "Requests answered in time. " + " ".join(
        f"{run.variant} at {run.rate_per_s:,.0f}/s {run.shape}: {run.summary.accepted:,} of {run.summary.planned:,}."
        for run in runs
    )


def _provenance(runs: Sequence[BaselineRun], here: Environment) -> str:
    one, machine = runs[0], runs[0].summary.environment
    doubtful = [f"{run.variant} at {run.rate_per_s:,.0f}/s {run.shape}" for run in runs if _is_doubtful(run)]
    note = note_on(one, here)
    text = (
        f"{note[0].upper()}{note[1:]}. The machine: {machine.processor}, {machine.cores} cores. The load:"
        f" {one.delay_s * 1000:g} ms a job, clients give up after {one.timeout_s:g} s."
    )
    return text + (f" Generator-bound, read with care: {', '.join(doubtful)}." if doubtful else "")


def _is_doubtful(run: BaselineRun) -> bool:
    return run.summary.verdict != "valid"
