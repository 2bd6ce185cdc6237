"""``result.json``: the outcome of a spike, as a schema-versioned model."""

from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from overload_demo.lab.baseline import BaselineRun
from overload_demo.load.load_result import LoadSummary
from overload_demo.load.plan import Shape

SCHEMA_VERSION: Literal[1] = 1
WAITING_SHARE = 0.1  # chosen: with fewer jobs waiting at the peak, the worker kept up with the spike
GIVEN_UP_SHARE = 0.05  # chosen: with fewer clients timed out, the naive API kept up too
NOT_ASKED_FOR = "not asked for"  # the note of a run without a naive API beside it
ADVICE = "Raise --rate or --processing-delay, or fire more --requests"


class Conditions(BaseModel, frozen=True):
    """What was requested, and where: enough to repeat the run. ``max_queue_depth`` 0: the queue had no bound."""

    command: str
    requests: int
    rate_per_s: float
    rate_chosen_by: Literal["user", "calibration", "default"]
    calibrated_per_s: float | None
    shape: Shape
    seed: int
    timeout_s: float
    expires_in_s: float | None = None
    max_queue_depth: int = 0
    processing_delay_s: float
    placement: Literal["kernel", "process"]
    store: Literal["embedded", "upstash"]
    durability: Literal["always", "everysec", "none", "unknown"]
    filesystem: str
    dashboard: Literal["on", "off"] = "off"
    versions: dict[str, str]


class SpikeSeries(BaseModel, frozen=True):
    """A spike over time; seconds since the first intended send.

    The first group has one value a second, beginning at ``start_s``, as the clients measured it (None without a
    response). The second group are samples of the queue at ``sampled_at_s``.
    """

    start_s: list[float]
    offered_per_s: list[float]
    accepted_per_s: list[float]
    failed_per_s: list[float]
    acceptance_p50_s: list[float | None]
    acceptance_p99_s: list[float | None]

    sampled_at_s: list[float]
    queue_depth: list[int]
    in_flight: list[int]
    settled: list[int]
    oldest_age_s: list[float]

    def drained_per_s(self, bucket_s: float = 1.0) -> tuple[list[float], list[float]]:
        """Return jobs settled a second between samples at least ``bucket_s`` apart: (middle of interval, rate)."""
        at_s, rates = [], []
        since_s, since = self.sampled_at_s[0], self.settled[0]
        for now_s, settled in zip(self.sampled_at_s, self.settled, strict=True):
            if now_s - since_s >= bucket_s:
                at_s.append((since_s + now_s) / 2)
                rates.append((settled - since) / (now_s - since_s))
                since_s, since = now_s, settled
        return at_s, rates

    def drain_rate_per_s(self) -> float:
        """Return jobs settled ÷ time between the first and the last sample with a new count; 0.0 without two."""
        moving: list[int] = (np.flatnonzero(np.diff(self.settled) > 0) + 1).tolist()
        if not moving or (lasted_s := self.sampled_at_s[moving[-1]] - self.sampled_at_s[moving[0]]) == 0:
            return 0.0
        return round((self.settled[moving[-1]] - self.settled[moving[0]]) / lasted_s, 1)

    def seconds_from_peak(self) -> float:
        """Return the time from the deepest sample to :meth:`seconds_to_empty`, as read off the curve."""
        return self.seconds_to_empty() - self.sampled_at_s[int(np.argmax(self.queue_depth))]

    def seconds_to_empty(self) -> float:
        """Return the time of the first sample after which nothing was waiting or in flight, seconds."""
        held: list[int] = np.flatnonzero(np.maximum(self.queue_depth, self.in_flight)).tolist()
        return (self.sampled_at_s[held[-1] + 1 if held else 0 :] or self.sampled_at_s[-1:])[0]


class SpikeResult(BaseModel, frozen=True):
    """A spike, accounted for. ``offered = accepted + errors``; ``accepted = done + failed + lost``;
    ``failed`` includes the ``expired``, which did not start by their deadline.

    ``drain_rate_per_s`` is jobs settled ÷ time from the first to the last settlement sampled. ``seconds_to_empty``
    counts from the first intended send. ``rest_calls_per_job`` and ``store_…_per_job`` are None where a process that
    counts them was restarted during the run. Megabytes are 10^6 bytes. ``folder`` contains the files of the run.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    recorded_at: str
    verdict: Literal["absorbed", "not absorbed"]
    reasons: list[str]
    offered: int
    accepted: int
    errors: dict[str, int]
    done: int
    failed: int
    expired: int = 0
    lost: int
    duplicated: int
    unclaimed: int
    examples: list[str]
    peak_queue_depth: int
    drain_rate_per_s: float
    capacity_per_s: float
    seconds_to_empty: float
    peak_memory_mb: dict[str, float]
    memory_kind: str
    rest_calls_per_job: float | None
    store_commands_per_job: float | None
    store_scripts_per_job: float | None = None
    restarts: dict[str, int]
    conditions: Conditions
    load: LoadSummary
    series: SpikeSeries
    baseline: BaselineRun | None = None
    baseline_source: Literal["live", "recorded", "none"] = "none"
    baseline_note: str = ""
    folder: Path | None = Field(None, exclude=True)  # not stored: it is a path of one machine

    @property
    def doubts(self) -> list[str]:
        """Missing requests or jobs, a load off schedule, a comparison that shows nothing: a line each."""
        missing = [f"{self.verdict}: {reason}" for reason in self.reasons]
        late = [] if self.load.verdict == "valid" else [f"{self.load.verdict}: {self.load.reason}"]
        caveat = self.caveat.removesuffix(f". {ADVICE}")  # the advice is about options of the command
        return missing + late + ([f"the comparison shows nothing: {caveat}"] if caveat else [])

    @property
    def caveat(self) -> str:
        """Why this run shows nothing about a queue in overload; empty where it does.

        An absorbed spike shows something only if jobs waited, and a naive API only if its clients timed out.
        """
        if self.verdict != "absorbed":
            return ""
        if not self.conditions.max_queue_depth and self.peak_queue_depth < WAITING_SHARE * self.offered:
            waited = f"at most {self.peak_queue_depth:,} of {self.offered:,} jobs waited"
            return f"the worker kept up: {waited}. {ADVICE}"
        if self.baseline is not None and self.baseline.failed < GIVEN_UP_SHARE * self.baseline.summary.planned:
            load, timeout_s = self.baseline.summary, self.baseline.timeout_s
            answered = f"it answered {load.accepted:,} of {load.planned:,} clients within {timeout_s:g} s"
            return f"the naive API kept up: {answered}. {ADVICE}"
        return ""

    @property
    def upstash_commands(self) -> tuple[int, int] | None:
        """What Upstash would bill: a script as one command, or with the commands inside it; None if not counted."""
        if self.store_scripts_per_job is None or self.store_commands_per_job is None:
            return None
        return round(self.store_scripts_per_job * self.accepted), round(self.store_commands_per_job * self.accepted)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.offered != self.accepted + sum(self.errors.values()):
            raise ValueError(f"offered {self.offered} is not accepted {self.accepted} + errors {self.errors}")
        return self

    def save(self, folder: Path) -> Path:
        """Write ``result.json`` into ``folder``."""
        path = folder / "result.json"
        path.write_text(self.model_dump_json(indent=1) + "\n")
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a ``result.json``. Raises pydantic's ValidationError for any other content."""
        return cls.model_validate_json(path.read_bytes()).model_copy(update={"folder": path.parent})
