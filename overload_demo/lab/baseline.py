"""A run of the naive baseline as it is kept, and those recorded earlier.

What an API without a queue has for a queue is its requests in flight, and for a drain rate its answers a second; so
those are what a :class:`BaselineRun` holds over time.
"""

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

import overload_demo
from overload_demo.errors import ConfigurationError
from overload_demo.load import LoadSeries, LoadSummary, Shape

Variant = Literal["async-blocking", "def-slot", "def-no-slot"]
VARIANTS: tuple[Variant, ...] = ("async-blocking", "def-slot", "def-no-slot")


class BaselineSeries(LoadSeries):
    """A load on the naive API over time, with samples of the app's own counts at ``sampled_at_s``.

    A blocked app yields fewer samples. ``app_in_flight`` includes requests whose clients have left, ``app_completed``
    (a running total) their jobs.
    """

    sampled_at_s: list[float]
    app_in_flight: list[int]
    app_completed: list[int]


class BaselineRun(BaseModel):
    """One load on one variant: the conditions, every request accounted for, and the course of it.

    ``slot_capacity_per_s`` is what the slot allows by its measured hold time, jobs a second (None without a slot), and
    ``unloaded_per_s`` what the whole app answered; both from a closed loop of 64 clients before the load.
    ``slot_under_load_per_s`` is the slot's capacity over the whole run: it sinks when taking requests in leaves a
    thread that holds the slot waiting for Python's lock.
    ``summary.not_fired`` requests were not sent because the run reached ``max_duration_s``.
    """

    model_config = ConfigDict(frozen=True)

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
        """What the app can complete at its best, jobs a second: the slot's capacity, or what it did without one.

        The slot is held longer while threads contend for Python's lock, so the better of its two measurements counts.
        """
        slot = max(self.slot_capacity_per_s or 0.0, self.slot_under_load_per_s or 0.0)
        return slot or self.unloaded_per_s

    @property
    def failed(self) -> int:
        """Requests that were due and not answered in time."""
        return self.summary.planned - self.summary.accepted

    def answered_per_s(self) -> list[float]:
        """Return the answers in time for each second of the run, by when the slot did the work at the latest.

        Answers leave in bursts (thousands in a second were seen after seconds without any). What a second holds beyond
        the slot's capacity was worked on before it, so it is counted in the seconds before.
        """
        if self.slot_capacity_per_s is None:
            return self.series.accepted_per_s
        rates, excess = [], 0.0
        for answered in reversed(self.series.accepted_per_s):
            rates.append(min(answered + excess, self.capacity_per_s))
            excess += answered - rates[-1]
        return rates[::-1]

    def matches(self, *, delay_s: float, rate_per_s: float, shape: str, timeout_s: float, requests: int) -> bool:
        """Whether this run may be laid over another one: only at equal work, load and time-out."""
        mine = (self.delay_s, self.rate_per_s, self.timeout_s)
        theirs = (delay_s, rate_per_s, timeout_s)
        equal = all(math.isclose(one, other) for one, other in zip(mine, theirs, strict=True))
        return equal and self.shape == shape and self.requests == requests


class BaselineRecording(BaseModel):
    """A file of recorded runs; ``command`` is the line that makes it again."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    command: str
    runs: list[BaselineRun]


def recorded_baseline(results_dir: Path | None = None) -> list[BaselineRun]:
    """Return every recorded run in ``results_dir`` (default: the checkout's); empty where there is none.

    Raises :class:`ConfigurationError` when a file is not such a recording.
    """
    if results_dir is None:
        root = checkout_root()
        results_dir = root / "experiments" / "results" if root else Path("no-checkout")
    runs: list[BaselineRun] = []
    for path in sorted(results_dir.glob("naive_*.json")):
        try:
            runs += BaselineRecording.model_validate_json(path.read_bytes()).runs
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigurationError(f"{path} is not a recorded baseline: {where}: {first['msg']}") from None
    return runs


def checkout_root() -> Path | None:
    """Return the checkout this package is imported from, where ``experiments`` lies beside it; None without one."""
    root = Path(overload_demo.__file__).resolve().parents[1]
    return root if (root / "experiments" / "naive_sync" / "__main__.py").is_file() else None


def require_checkout() -> Path:
    """Return the checkout. Raises :class:`ConfigurationError`, which says what to do, when there is a wheel only."""
    root = checkout_root()
    if root is None:
        raise ConfigurationError(
            "the naive baseline needs a checkout: no experiments/naive_sync beside the package. "
            "Clone the repository, and install it with: pip install -e '.[notebooks]'"
        )
    return root
