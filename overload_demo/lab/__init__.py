"""What notebooks import: ``from overload_demo.lab import Stack, SpikePlan, run_spike, plots``.

The colours and looks of all figures and pages are here, and the form of measured numbers. Other names are loaded on
first use, so that a command which draws nothing does not load matplotlib; submodules need no entry.
"""

import html
import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

# The colours of every figure and page: Okabe and Ito's palette, which colour-blind people can distinguish.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
SKY, YELLOW = "#56B4E9", "#F0E442"  # lighter: for areas, never for lines

# Matplotlib's looks with one meaning in every figure.
Look = dict[str, Any]
QUEUE: Look = {"color": BLUE, "linewidth": 3}
NAIVE: Look = {"color": ORANGE, "linewidth": 3, "linestyle": (0, (4, 1.5))}
OFFERED: Look = {"color": GREY, "linewidth": 2, "linestyle": ":"}
PREDICTED: Look = {"color": PURPLE, "linewidth": 2.5, "linestyle": (0, (1, 1))}
GUESS: Look = PREDICTED | {"linestyle": "", "marker": "X", "markersize": 15, "clip_on": False, "zorder": 5}
# The looks of curves and of bars in the order in which a figure draws them; they differ without colour too.
CURVES: list[Look] = [
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": ORANGE, "linestyle": (0, (4, 1.5)), "marker": "s"},
    {"color": GREEN, "linestyle": (0, (1, 1)), "marker": "D"},
    {"color": GREY, "linestyle": "-.", "marker": "^"},
    {"color": PURPLE, "linestyle": (0, (4, 1.5, 1, 1.5)), "marker": "v"},
]
BARS: list[Look] = [
    {"color": BLUE},
    {"color": ORANGE, "hatch": "//"},
    {"color": GREEN, "hatch": ".."},
    {"color": SKY, "hatch": "xx"},
    {"color": GREY},
    {"color": PURPLE, "hatch": "\\\\"},
    {"color": YELLOW, "hatch": "||"},
]
SINCE = "seconds since the first request"  # the axis of time; a spike has a calm before its full rate
BOX: Look = {"color": "white", "pad": 2}  # below a text that crosses a line
READ_AS_FACTOR = 2.0  # chosen: from here on a factor is easier to read than a percentage

_HOMES = {
    "lab.crashes": ("Kill", "frozen", "run_with_kills"),
    "lab.job_log": ("JobLog", "PromiseRun", "follow", "read_events", "read_life"),
    "lab.measuring": ("Freeze", "corrected", "in_turns", "measure", "median_interval", "sign_test"),
    "lab.naive_api": ("breaks_at_per_s", "load_steps", "require_checkout"),
    "lab.preflight": ("Preflight",),
    "lab.round_trips": ("acceptance", "plain_recipe", "whole_life"),
    "lab.result": ("SpikeResult", "recorded_baseline"),
    "lab.sale": ("SaleBrief", "SaleDesign", "run_sale"),
    "lab.spike_plan": ("SpikePlan", "spike_progress", "steps_progress"),
    "lab.spike_run": ("run_spike",),
    "lab.stack": ("EFFECTS", "Stack"),
    "lab.storm": ("Cure", "FunctionBucket", "StormPlan", "run_storms"),
    "lab.storm_simulation": ("simulate",),
    "load": ("LoadPlan", "LoadResult", "RetryPolicy", "Shape", "TokenBucket", "run_load"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def about(number: float) -> str:
    """Return a number with about three digits: 12,695, 84.2, 1.63, 0.0078. A whole number keeps all of its digits."""
    if abs(number) >= 100 or (math.isfinite(number) and number == int(number)):
        return f"{number:,.0f}"
    return f"{number:.3g}"


def off_by(guess: float, measured: float) -> str:
    """Return the error of a prediction: in percent of the measured value, or as a factor where it is above 2."""
    if not measured or math.isnan(measured):
        return "-"
    ratio = guess / measured
    if ratio > READ_AS_FACTOR:
        return f"{ratio:.2g} times too high" if ratio < 10 else f"{ratio:,.0f} times too high"
    if 0 < ratio < 1 / READ_AS_FACTOR:
        return f"{1 / ratio:.2g} times too low" if ratio > 0.1 else f"{1 / ratio:,.0f} times too low"
    return f"{100 * (ratio - 1):+.0f} %"


def html_table(rows: Sequence[Sequence[str]], heads: Sequence[str], caption: str = "") -> str:
    """Return a table for a notebook; the texts are escaped."""
    left = ' style="text-align:left"'
    lines = ["".join(f"<th{left}>{head}</th>" for head in heads)]
    lines += ["".join(f"<td{left}>{html.escape(cell)}</td>" for cell in row) for row in rows]
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def __getattr__(name: str) -> Any:
    """Import a name from its module on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"overload_demo.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOME_OF, "plots", "report", "theory"])
