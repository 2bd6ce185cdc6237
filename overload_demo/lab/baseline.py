"""Recorded runs of the naive API, and when one may be compared with a live run."""

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

import overload_demo
from overload_demo.errors import ConfigurationError
from overload_demo.load.load_result import LoadSeries, LoadSummary
from overload_demo.load.machine import Environment
from overload_demo.load.plan import Shape

Variant = Literal["async-blocking", "def-slot", "def-no-slot"]
VARIANTS: tuple[Variant, ...] = ("async-blocking", "def-slot", "def-no-slot")


class BaselineSeries(LoadSeries):
    """A load on the naive API over time, with the app's own counts at ``sampled_at_s``; a blocked app has fewer.

    ``app_in_flight`` includes requests whose clients have left, ``app_completed`` (a running total) their jobs.
    """

    sampled_at_s: list[float]
    app_in_flight: list[int]
    app_completed: list[int]


class BaselineRun(BaseModel, frozen=True):
    """One load on one variant: its conditions, every request accounted for, and its course.

    ``slot_capacity_per_s`` is the slot's capacity by its measured hold time, jobs a second (None without a slot), and
    ``unloaded_per_s`` the response rate of the whole app; both in a closed loop of 64 clients before the load.
    ``slot_under_load_per_s`` is over the whole run: accepting requests makes the slot's thread wait for Python's lock.
    """

    variant: Variant
    requests: int
    rate_per_s: float
    shape: Shape
    seed: int
    delay_s: float
    timeout_s: float
    max_duration_s: float
    recorded_at: str
    server_command: str
    server_versions: dict[str, str]
    slot_capacity_per_s: float | None
    slot_under_load_per_s: float | None
    unloaded_per_s: float
    summary: LoadSummary
    series: BaselineSeries

    @property
    def capacity_per_s(self) -> float:
        """The app's best rate, jobs a second: the better measurement of the slot, or ``unloaded_per_s`` without one."""
        slot = max(self.slot_capacity_per_s or 0.0, self.slot_under_load_per_s or 0.0)
        return slot or self.unloaded_per_s

    @property
    def failed(self) -> int:
        """Requests that were due and got no response in time."""
        return self.summary.planned - self.summary.accepted

    def answered_per_s(self) -> list[float]:
        """Return the responses in time for each second of the run, by when the slot did the work at the latest.

        Responses leave in bursts (measured: thousands in one second after seconds without any). What exceeds the
        slot's capacity in one second was worked on before it, so it counts in the seconds before.
        """
        if self.slot_capacity_per_s is None:
            return self.series.accepted_per_s
        rates, excess = [], 0.0
        for answered in reversed(self.series.accepted_per_s):
            rates.append(min(answered + excess, self.capacity_per_s))
            excess += answered - rates[-1]
        return rates[::-1]

    def matches(self, *, delay_s: float, rate_per_s: float, shape: str, timeout_s: float, requests: int) -> bool:
        """Whether this run is comparable to another: equal work, load and timeout."""
        mine = (self.delay_s, self.rate_per_s, self.timeout_s)
        equal = all(map(math.isclose, mine, (delay_s, rate_per_s, timeout_s)))
        return equal and self.shape == shape and self.requests == requests


class BaselineRecording(BaseModel, frozen=True):
    """A file of recorded runs; ``command`` records them again."""

    schema_version: Literal[1] = 1
    command: str
    runs: list[BaselineRun]


def recorded_baseline(results_dir: Path | None = None) -> list[BaselineRun]:
    """Return every recorded run in ``results_dir`` (default: the checkout's); empty without the directory.

    Raises :class:`ConfigurationError` for a file that is not such a recording.
    """
    results_dir = results_dir or (checkout_root() or Path("no-checkout")) / "experiments" / "results"
    runs: list[BaselineRun] = []
    for path in sorted(results_dir.glob("naive_*.json")):
        try:
            runs += BaselineRecording.model_validate_json(path.read_bytes()).runs
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigurationError(f"{path} is not a recorded baseline: {where}: {first['msg']}") from None
    return runs


def equal_recorded(here: Environment, variant: Variant, **conditions: Any) -> tuple[BaselineRun | None, str]:
    """Return the recorded run that :meth:`BaselineRun.matches` ``conditions``, and a note on it; or None and why.

    Raises :class:`ConfigurationError` as :func:`recorded_baseline` does.
    """
    for run in recorded_baseline():
        if run.variant == variant and run.matches(**conditions):
            return run, note_on(run, here)
    return None, "no recorded run has equal work, load and timeout"


def note_on(run: BaselineRun, here: Environment) -> str:
    """Return when a run was recorded, and on which machine if its environment is not like ``here``."""
    there = run.summary.environment
    note = f"recorded {run.recorded_at}, not measured now"
    if not there.is_like(here):
        machine = f"{there.cores} cores, {there.system}, Python {there.python}"
        note += f"; recorded on another machine ({machine}): compare shares of capacity, not rates"
    return note


def checkout_root() -> Path | None:
    """Return the checkout this package is imported from, with ``experiments`` beside it; None without one."""
    root = Path(overload_demo.__file__).resolve().parents[1]
    return root if (root / "experiments" / "naive_sync" / "__main__.py").is_file() else None


def require_checkout() -> Path:
    """Return the checkout. Raises :class:`ConfigurationError` with the remedy when only a wheel is installed."""
    root = checkout_root()
    if root is None:
        raise ConfigurationError(
            "the naive baseline needs a checkout: no experiments/naive_sync beside the package. "
            "Clone the repository, and install it with: pip install -e '.[notebooks]'"
        )
    return root
