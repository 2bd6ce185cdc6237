"""What notebooks import: ``from overload_demo.lab import Stack, SpikePlan, run_spike, plots``.

Names are loaded on first use, so that a command which draws nothing does not load matplotlib. The submodules ``plots``,
``report`` and ``theory`` need no entry.
"""

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
SINCE = "seconds since the first request"  # the axis of time; a spike has a calm before its full rate
BOX: Look = {"color": "white", "pad": 2}  # below a text that crosses a line

_HOMES = {
    "lab.crashes": ("Kill", "frozen", "run_with_kills"),
    "lab.job_log": ("JobLog", "PromiseRun", "follow", "read_events", "read_life"),
    "lab.measuring": ("Freeze", "corrected", "in_turns", "measure", "median_interval", "sign_test"),
    "lab.naive_api": ("breaks_at_per_s", "load_steps"),
    "lab.preflight": ("Preflight",),
    "lab.round_trips": ("acceptance", "plain_recipe", "whole_life"),
    "lab.result": ("SpikeResult", "recorded_baseline", "require_checkout"),
    "lab.sale": ("SaleBrief", "SaleDesign", "run_sale"),
    "lab.spike_plan": ("SpikePlan", "spike_progress", "steps_progress"),
    "lab.spike_run": ("run_spike",),
    "lab.stack": ("EFFECTS", "Stack"),
    "lab.storm": ("Cure", "FunctionBucket", "StormPlan", "run_storms"),
    "lab.storm_simulation": ("simulate",),
    "load": ("LoadPlan", "LoadResult", "RetryPolicy", "Shape", "TokenBucket", "run_load"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name from its module on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"overload_demo.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOME_OF, "plots", "report", "theory"])
