"""What is stored of a run: ``result.json`` of a spike with the votes on it, and the recorded runs of the naive API."""

import math
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError, model_validator

import overload_demo
from overload_demo.errors import ConfigurationError
from overload_demo.load.load_result import LoadSeries, LoadSummary
from overload_demo.load.plan import LoadPlan, RetryPolicy, Shape
from overload_demo.rest import DURABILITY_TEXT

SCHEMA_VERSION: Literal[1] = 1
WAITING_SHARE = 0.1  # chosen: with fewer jobs waiting at the peak, the worker kept up with the spike
GIVEN_UP_SHARE = 0.05  # chosen: with fewer clients timed out, the naive API kept up too
NOT_ASKED_FOR = "not asked for"  # the note of a run without a naive API beside it
ADVICE = "Raise --rate or --processing-delay, or fire more --requests"

MOST_ANSWERS, MOST_HANDS = 4, 10_000  # of a vote: rows of the page; more hands than a lecture hall has seats

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
        return max(self.slot_capacity_per_s or 0.0, self.slot_under_load_per_s or 0.0) or self.unloaded_per_s

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

    def matches(self, plan: LoadPlan, delay_s: float) -> bool:
        """Whether this run is comparable to one of ``plan``: equal work, load and timeout, sent for as long."""
        mine, its = (self.delay_s, self.rate_per_s, self.timeout_s), (delay_s, plan.rate_per_s, plan.timeout_s)
        is_equal = all(map(math.isclose, mine, its)) and (self.shape, self.requests) == (plan.shape, plan.requests)
        has_seed = self.shape is not Shape.POISSON or self.seed == plan.seed
        return is_equal and has_seed and math.isclose(self.summary.planned, plan.schedule().size, rel_tol=0.01)


class BaselineRecording(BaseModel, frozen=True):
    """A file of recorded runs; ``command`` records them again."""

    schema_version: Literal[1] = 1
    command: str
    runs: list[BaselineRun]


def recorded_baseline(results_dir: Path | None = None) -> list[BaselineRun]:
    """Return every recorded run in ``results_dir`` (default: the checkout's); empty without the directory.

    Raises :class:`ConfigurationError` for a file that is not such a recording.
    """
    results_dir = results_dir or Path(overload_demo.__file__).resolve().parents[1] / "experiments" / "results"
    runs: list[BaselineRun] = []
    for path in sorted(results_dir.glob("naive_*.json")):
        try:
            runs += BaselineRecording.model_validate_json(path.read_bytes()).runs
        except ValidationError as error:
            raise ConfigurationError(f"{path} is not a recorded baseline: {first_problem(error)}") from None
    return runs


def first_problem(error: ValidationError) -> str:
    """Return where a file differs from its model, and how."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"


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
    retry: RetryPolicy | None = None
    max_queue_depth: int = 0
    processing_delay_s: float
    placement: Literal["kernel", "process"]
    store: Literal["embedded", "upstash"]
    nodes: int = 1
    durability: str = Field(pattern=DURABILITY_TEXT)
    filesystem: str
    dashboard: Literal["on", "off"] = "off"
    versions: dict[str, str]


class SpikeSeries(BaseModel, frozen=True):
    """A spike over time; seconds since the first intended send.

    The first group has one value a second, beginning at ``start_s``, as the clients measured it (None without a
    response); ``attempts_per_s`` is empty unless clients retry, then ``accepted_per_s`` is goodput. The second group
    are samples of the queue at ``sampled_at_s``.
    """

    start_s: list[float]
    offered_per_s: list[float]
    attempts_per_s: list[float] = []
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
        """Return jobs settled a second between samples at least ``bucket_s`` apart: the rates, and one edge more."""
        edges_s, rates, since = self.sampled_at_s[:1], [], self.settled[0]
        for now_s, settled in zip(self.sampled_at_s, self.settled, strict=True):
            if now_s - edges_s[-1] >= bucket_s:
                rates.append((settled - since) / (now_s - edges_s[-1]))
                edges_s.append(now_s)
                since = settled
        return rates, edges_s

    def drain_rate_per_s(self) -> float:
        """Return jobs settled ÷ time between the first and the last sample with a new count; 0.0 without two."""
        moving: list[int] = (np.flatnonzero(np.diff(self.settled) > 0) + 1).tolist()
        if not moving or (lasted_s := self.sampled_at_s[moving[-1]] - self.sampled_at_s[moving[0]]) == 0:
            return 0.0
        return round((self.settled[moving[-1]] - self.settled[moving[0]]) / lasted_s, 4)

    def seconds_from_peak(self) -> float:
        """Return the time from the deepest sample to :meth:`seconds_to_empty`, as read off the curve."""
        return self.seconds_to_empty() - self.sampled_at_s[int(np.argmax(self.queue_depth))]

    def seconds_to_empty(self) -> float:
        """Return the time of the first sample after which nothing was waiting or in flight, seconds."""
        held: list[int] = np.flatnonzero(np.maximum(self.queue_depth, self.in_flight)).tolist()
        return (self.sampled_at_s[held[-1] + 1 if held else 0 :] or self.sampled_at_s[-1:])[0]


class Reconciliation(BaseModel, frozen=True):
    """Accepted jobs by outcome; ``examples`` names some ids of the lost and the duplicated.

    ``lost``: no terminal state, or done without an effect. ``unended``: no terminal state either, but the queue still
    counted them when the run stopped waiting. ``duplicated``: more than one effect. ``failed``: ended with
    an error. ``unclaimed``: effects of jobs whose 202 reached no client (a timeout, a response cut off).
    """

    accepted: int
    done: int
    failed: int
    lost: int
    unended: int = 0
    duplicated: int
    unclaimed: int
    examples: list[str]

    @property
    def lost_text(self) -> str:
        """How many jobs were lost and, if any, had not ended."""
        return f"{self.lost:,} lost" + (f", {self.unended:,} not ended" if self.unended else "")


class Question(BaseModel, frozen=True):
    """A prepared question on ``act``; ``right`` is the position of the right answer, from 0, and ``why`` its reason."""

    act: str
    title: str
    text: str
    answers: list[str] = Field(min_length=3, max_length=MOST_ANSWERS)
    right: int = Field(ge=0, lt=MOST_ANSWERS)
    why: str


class Vote(BaseModel, frozen=True):
    """A vote of a class before and after it discussed a question (peer instruction; E. Mazur, 1997).

    ``first`` and ``second`` are the hands of each count, one number an answer; None before that count.
    ``asked_at_s`` is on the clock of the act's curves, 0 before the act.
    """

    question: Question
    asked_at_s: float = 0.0
    first: list[NonNegativeInt] | None = None
    second: list[NonNegativeInt] | None = None

    @model_validator(mode="after")
    def _fits_the_question(self) -> Self:
        answers = len(self.question.answers)
        if self.question.right >= answers or any(len(one) != answers or not sum(one) for one in self.counts.values()):
            raise ValueError("a count needs a number for each answer, and at least one hand")
        return self

    @property
    def counts(self) -> dict[str, list[int]]:
        """The counts taken so far: "first", "second"."""
        return {name: hands for name in ("first", "second") if (hands := getattr(self, name)) is not None}

    @property
    def change(self) -> str:
        """The share of right answers in each count, in a line; empty before the first."""
        shares = [hands[self.question.right] / sum(hands) for hands in self.counts.values()]
        return "Right answers: " + ", then ".join(f"{100 * share:.0f} %" for share in shares) + "." if shares else ""


class SpikeResult(Reconciliation):
    """A spike, accounted for. ``offered = accepted + errors``, counted in attempts if clients retry;
    ``accepted = done + failed + lost + unended``; ``failed`` includes the ``expired``: not started by their deadline.

    ``drain_rate_per_s`` is jobs settled ÷ time from the first to the last settlement sampled. ``seconds_to_empty``
    counts from the first intended send. ``rest_calls_per_job`` and ``store_…_per_job`` are None where a process that
    counts them was restarted during the run. Megabytes are 10^6 bytes. ``votes`` are those of the class that saw the
    run; ``folder`` contains its files.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    recorded_at: str
    verdict: Literal["absorbed", "not absorbed"]
    reasons: list[str]
    offered: int
    errors: dict[str, int]
    expired: int = 0
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
    votes: list[Vote] = []
    folder: Path | None = Field(None, exclude=True)  # not stored: it is a path of one machine

    @property
    def doubts(self) -> list[str]:
        """Missing requests or jobs, a load off schedule, a comparison that shows nothing: a line each."""
        missing = [f"{self.verdict}: {reason}" for reason in self.reasons]
        late = [f"{self.load.verdict}: {self.load.doubt}"] if self.load.doubt else []
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
        load = self.baseline and self.baseline.summary
        if self.baseline and load and load.planned - load.accepted < GIVEN_UP_SHARE * load.planned:
            clients = f"{load.accepted:,} of {load.planned:,} clients within {self.baseline.timeout_s:g} s"
            return f"the naive API kept up: it answered {clients}. {ADVICE}"
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

    def save(self, folder: Path) -> None:
        """Write ``result.json`` into ``folder``."""
        (folder / "result.json").write_text(self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a ``result.json``. Raises pydantic's ValidationError for any other content."""
        return cls.model_validate_json(path.read_bytes()).model_copy(update={"folder": path.parent})
