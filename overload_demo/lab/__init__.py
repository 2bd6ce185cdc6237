"""What notebooks import: ``from overload_demo.lab import Stack, SpikePlan, run_spike, plots``.

Names are loaded on first use, so that a command which draws nothing does not load matplotlib. The submodules ``plots``,
``report`` and ``theory`` need no entry.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "lab.baseline": ("recorded_baseline", "require_checkout"),
    "lab.crashes": ("Kill", "run_with_kills"),
    "lab.job_log": ("EFFECTS", "JobLog", "PromiseRun", "read_events"),
    "lab.job_timeline": ("follow", "read_life"),
    "lab.preflight": ("Preflight",),
    "lab.progress": ("spike_progress", "steps_progress"),
    "lab.result": ("SpikeResult",),
    "lab.spike_plan": ("SpikePlan",),
    "lab.spike_run": ("run_spike",),
    "lab.stack": ("Stack",),
    "lab.naive_api": ("breaks_at_per_s", "load_steps"),
    "load": ("LoadResult", "Shape"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name from its module on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"overload_demo.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOME_OF, "plots", "report", "theory"])
