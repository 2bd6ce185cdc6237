"""What notebooks import: ``from overload_demo.lab import Stack, SpikePlan, run_spike, plots``.

Names are loaded on first use, so that a command which draws nothing does not load matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overload_demo.lab import plots, report, theory
    from overload_demo.lab.baseline import recorded_baseline, require_checkout
    from overload_demo.lab.crashes import Kill, run_with_kills
    from overload_demo.lab.job_log import EFFECTS, JobLog, read_events
    from overload_demo.lab.job_timeline import follow, read_life
    from overload_demo.lab.preflight import Preflight
    from overload_demo.lab.progress import spike_progress, steps_progress
    from overload_demo.lab.promise import PromiseRun
    from overload_demo.lab.result import SpikeResult
    from overload_demo.lab.spike_plan import SpikePlan
    from overload_demo.lab.spike_run import run_spike
    from overload_demo.lab.stack import Stack
    from overload_demo.lab.steps import breaks_at_per_s, load_steps
    from overload_demo.load import LoadResult, Shape

__all__ = [
    "EFFECTS",
    "JobLog",
    "Kill",
    "LoadResult",
    "Preflight",
    "PromiseRun",
    "Shape",
    "SpikePlan",
    "SpikeResult",
    "Stack",
    "breaks_at_per_s",
    "follow",
    "load_steps",
    "plots",
    "read_events",
    "read_life",
    "recorded_baseline",
    "report",
    "require_checkout",
    "run_spike",
    "run_with_kills",
    "spike_progress",
    "steps_progress",
    "theory",
]

_HOMES = {
    "lab.baseline": ("recorded_baseline", "require_checkout"),
    "lab.crashes": ("Kill", "run_with_kills"),
    "lab.job_log": ("EFFECTS", "JobLog", "read_events"),
    "lab.job_timeline": ("follow", "read_life"),
    "lab.preflight": ("Preflight",),
    "lab.progress": ("spike_progress", "steps_progress"),
    "lab.promise": ("PromiseRun",),
    "lab.result": ("SpikeResult",),
    "lab.spike_plan": ("SpikePlan",),
    "lab.spike_run": ("run_spike",),
    "lab.stack": ("Stack",),
    "lab.steps": ("breaks_at_per_s", "load_steps"),
    "load": ("LoadResult", "Shape"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name from its module on first use; submodules such as ``plots`` are imported by Python itself."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"overload_demo.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
