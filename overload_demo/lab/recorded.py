"""When a recorded run of the naive API may stand beside a live one, and what has to be said then."""

from pathlib import Path

from overload_demo.lab.baseline import BaselineRun, Variant, recorded_baseline
from overload_demo.load.summary import Environment


def equal_recorded(
    here: Environment,
    *,
    variant: Variant,
    delay_s: float,
    rate_per_s: float,
    shape: str,
    timeout_s: float,
    requests: int,
    results_dir: Path | None = None,
) -> tuple[BaselineRun | None, str]:
    """The recorded run to lay over one measured ``here``, and the note on it; None and why where none is equal.

    Raises what :func:`recorded_baseline` raises.
    """
    for run in recorded_baseline(results_dir):
        if run.variant == variant and run.matches(
            delay_s=delay_s, rate_per_s=rate_per_s, shape=shape, timeout_s=timeout_s, requests=requests
        ):
            return run, note_on(run, here)
    return None, "no recorded run has equal work, load and time-out"


def note_on(run: BaselineRun, here: Environment) -> str:
    """When a recorded run was made, and that it was on another machine, if its environment is not like ``here``.

    Rates of two machines say nothing about each other; shares of each one's own capacity do.
    """
    there = run.summary.environment
    note = f"recorded {run.recorded_at}, not measured now"
    if there.is_like(here):
        return note
    machine = f"{there.cores} cores, {there.system}, Python {there.python}"
    return f"{note}; recorded on another machine ({machine}): compare shares of capacity, not rates"
