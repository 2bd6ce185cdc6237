"""The outcome of a load: raw arrays with one element a request, and the summary and series computed from them.

All times are seconds from the common start of the load, float64, NaN for what did not happen.
"""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, model_validator

from overload_demo.errors import ConfigurationError
from overload_demo.load.machine import Environment
from overload_demo.load.outcomes import RAW, Attempts, Kind, RetrySummary, outcome_name
from overload_demo.load.plan import Floats, LoadPlan, Shape, Until, duration

Verdict = Literal["valid", "generator-bound"]

FORMAT = 1
MAX_LAG_P99_S = 0.010  # chosen
MAX_CPU_SHARE = 0.90  # chosen


class Percentiles(BaseModel, frozen=True):
    """Percentiles of durations, seconds (numpy's linear interpolation)."""

    count: int
    p50_s: float
    p90_s: float
    p99_s: float
    p999_s: float
    max_s: float

    @classmethod
    def of(cls, durations_s: Floats) -> Self | None:
        """Return the percentiles of an array; None for an empty one."""
        if not durations_s.size:
            return None
        p50, p90, p99, p999, highest = np.percentile(durations_s, [50, 90, 99, 99.9, 100]).round(6).tolist()
        return cls(count=durations_s.size, p50_s=p50, p90_s=p90, p99_s=p99, p999_s=p999, max_s=highest)


class Health(BaseModel, frozen=True):
    """The generator's measurements of itself.

    Lag is actual minus intended send time, seconds. ``cpu_share`` holds one value a process: CPU seconds a second while
    it was sending. ``peak_open_sockets`` is the sum over processes of the most requests in flight, a socket each.
    """

    lag_p50_s: float
    lag_p99_s: float
    lag_max_s: float
    cpu_share: list[float]
    peak_open_sockets: int


class LoadSeries(BaseModel, frozen=True):
    """A load over time: one element a bucket; None where a bucket holds no accepted request.

    ``offered``, ``attempts``, ``accepted`` (the goodput) and ``failed`` are per second, by intended time, time of each
    send, and times of a request's last response or failure; earlier records have no ``attempts``. The response times
    belong to the requests *intended* in that bucket and accepted later. ``in_flight`` counts requests sent and not
    ended at the end of the bucket.
    """

    start_s: list[float]
    offered_per_s: list[float]
    attempts_per_s: list[float] = []
    accepted_per_s: list[float]
    failed_per_s: list[float]
    in_flight: list[float]
    response_p50_s: list[float | None]
    response_p99_s: list[float | None]


class LoadSummary(BaseModel, frozen=True):
    """Every request accounted for, and the times of those accepted. Validation fails if the counts do not add up.

    ``planned = sent + dropped`` (dropped: never sent, because the socket cap was reached), and ``sent`` is the sum of
    the outcomes. ``other_status`` counts responses with another status by code. ``response_time`` starts at the
    *intended* send time, ``service_time`` at the actual one; both of accepted requests only. ``not_fired`` requests
    were due after the plan's longest duration. ``retry`` is None without a policy; with one, a request has the outcome
    of its last attempt, and ``service_time`` is that of the accepted attempt.
    """

    mode: Literal["open loop", "closed loop"]
    planned: int
    sent: int
    dropped: int
    not_fired: int = 0
    accepted: int
    other_status: dict[int, int]
    refused: int
    reset: int
    connect_timeout: int
    read_timeout: int
    disconnected: int
    address_unavailable: int
    other: int
    no_result: int = 0
    duration_s: float
    sent_per_s: float
    accepted_per_s: float
    response_time: Percentiles | None
    service_time: Percentiles | None
    health: Health
    verdict: Verdict
    reason: str
    remarks: list[str] = []
    environment: Environment
    retry: RetrySummary | None = None

    @property
    def failures(self) -> dict[str, int]:
        """Requests sent and not accepted, by outcome, zeros left out."""
        named = {f"status {code}": count for code, count in sorted(self.other_status.items())}
        for kind in list(Kind)[Kind.REFUSED :]:
            named[outcome_name(kind, 0)] = getattr(self, kind.name.lower())
        return {name: count for name, count in named.items() if count}

    @property
    def all_accepted(self) -> bool:
        """Whether every planned request was sent and accepted."""
        return self.accepted == self.planned

    @property
    def doubt(self) -> str:
        """Why these numbers may be the load generator's own; empty for a valid load."""
        return "" if self.verdict == "valid" else self.reason

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.planned != self.sent + self.dropped:
            raise ValueError(f"planned {self.planned} is not sent {self.sent} + dropped {self.dropped}")
        if self.sent != (outcomes := self.accepted + sum(self.failures.values())):
            raise ValueError(f"sent {self.sent} is not the sum of its outcomes, {outcomes}")
        if self.retry and (self.retry.requests, self.retry.accepted) != (self.sent, self.accepted):
            raise ValueError(f"sent {self.sent}, accepted {self.accepted} are not those of {self.retry}")
        return self


@dataclass(frozen=True)
class ProcessReport:
    """One load process's own numbers: CPU seconds a second while sending, most requests in flight."""

    cpu_share: float
    peak_open_sockets: int


@dataclass(frozen=True)
class LoadResult:
    """A finished load: arrays of shape ``(planned,)`` in the order of the schedule.

    ``status`` is int16 (0: no response), ``kind`` uint8 (:class:`Kind`), ``job_ids`` fixed-width bytes (empty unless
    accepted). ``started_at`` is the wall clock of second 0, ``started_mono_s`` its CLOCK_MONOTONIC. With clients that
    retry, ``sent_s`` is of the first attempt, the rest of the last one, and ``attempts`` holds all.
    """

    plan: LoadPlan
    intended_s: Floats
    sent_s: Floats
    done_s: Floats
    status: npt.NDArray[np.int16]
    kind: npt.NDArray[np.uint8]
    job_ids: npt.NDArray[np.bytes_]
    processes: list[ProcessReport]
    environment: Environment
    started_at: str
    started_mono_s: float
    attempts: Attempts | None = None

    @property
    def accepted(self) -> npt.NDArray[np.bool_]:
        """Which requests were accepted, shape ``(planned,)``."""
        return np.equal(self.kind, Kind.ACCEPTED)

    @property
    def accepted_ids(self) -> list[str]:
        """The ids of all accepted jobs, in the order of the schedule; a request may have several if it was repeated."""
        if self.attempts is not None:
            return self.attempts.accepted_ids
        return [job_id.decode() for job_id in self.job_ids[self.accepted].tolist()]

    @property
    def response_s(self) -> Floats:
        """Time from the intended send to the end, seconds, send delay included."""
        return self.done_s - self.intended_s

    def summary(self) -> LoadSummary:
        """Count and judge. Raises ValueError if the counts do not add up."""
        counts = {kind.name.lower(): int(np.count_nonzero(self.kind == kind)) for kind in Kind}
        planned, accepted, health = self.kind.size, self.accepted, self._health()
        sent, last_sent_s = planned - counts["dropped"], _latest(self.sent_s)
        verdict, reason = judge(health, counts["dropped"], is_closed=self.plan.is_closed)
        service_s, remarks = self._service_s(), list[str]()
        if self.plan.retry is None or self.plan.retry.until is Until.ACCEPTED:
            remarks = remarks_on(service_s)
        if self.plan.shape is Shape.AT_ONCE and not self.plan.is_closed:
            means = f"at once means as fast as {len(self.processes)} load processes open sockets"
            remarks.insert(0, f"{means}; the last request was sent at {last_sent_s:.2f} s")
        return LoadSummary(
            **counts | {"other_status": Counter(self.status[self.kind == Kind.OTHER_STATUS].tolist())},
            mode="closed loop" if self.plan.is_closed else "open loop",
            planned=planned,
            sent=sent,
            not_fired=self.plan.requests - planned,
            duration_s=round(_latest(self.done_s), 3),
            sent_per_s=_rate(sent, last_sent_s) if sent > 1 else 0.0,
            accepted_per_s=_rate(counts["accepted"], _latest(self.done_s[accepted])),
            response_time=Percentiles.of(self.response_s[accepted]),
            service_time=Percentiles.of(service_s),
            health=health,
            verdict=verdict,
            reason=reason,
            remarks=remarks,
            environment=self.environment,
            retry=None if self.attempts is None else self.attempts.summary(),
        )

    def series(self, bucket_s: float = 1.0) -> LoadSeries:
        """Cut the load into buckets of ``bucket_s`` seconds, from 0 to the end of the last request."""
        ended_s = max(_latest(self.done_s), _latest(self.intended_s))
        edges_s = np.arange(int(ended_s // bucket_s) + 2, dtype=np.float64) * bucket_s
        accepted, sent = self.accepted, self.kind > Kind.DROPPED

        def per_s(times_s: Floats) -> list[float]:
            return _numbers(np.histogram(times_s, edges_s)[0] / bucket_s)

        def before(times_s: Floats) -> Floats:
            return np.searchsorted(np.sort(times_s[sent]), edges_s[1:]).astype(np.float64)

        order = np.argsort(self.intended_s[accepted], kind="stable")
        intended_s, response_s = self.intended_s[accepted][order], self.response_s[accepted][order]
        groups = np.split(response_s, np.searchsorted(intended_s, edges_s[1:-1]))
        p50_s, p99_s = np.transpose([np.percentile(one if one.size else [np.nan], [50, 99]) for one in groups])
        return LoadSeries(
            start_s=_numbers(edges_s[:-1]),
            offered_per_s=per_s(self.intended_s),
            attempts_per_s=per_s((self if self.attempts is None else self.attempts).sent_s),
            accepted_per_s=per_s(self.done_s[accepted]),
            failed_per_s=per_s(self.done_s[self.kind > Kind.ACCEPTED]),
            in_flight=_numbers(before(self.sent_s) - before(self.done_s)),
            response_p50_s=_numbers(p50_s),
            response_p99_s=_numbers(p99_s),
        )

    def write(self, folder: Path) -> None:
        """Write everything (``load.npz``), and plan and summary to read (``load.json``), into ``folder``.

        Raises :class:`ConfigurationError` where it cannot be written.
        """
        about = {
            "format": FORMAT,
            "plan": asdict(self.plan),
            "processes": [asdict(report) for report in self.processes],
            "environment": self.environment.model_dump(),
            "started_at": self.started_at,
            "started_mono_s": self.started_mono_s,
        }
        raw: dict[str, Any] = {name: getattr(self, name) for name in RAW}
        raw |= {} if self.attempts is None else self.attempts.stored()
        document = {"plan": about["plan"], "summary": self.summary().model_dump(mode="json")}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(folder / "load.npz", about=np.array(json.dumps(about)), **raw)
            (folder / "load.json").write_text(json.dumps(document, indent=2) + "\n")
        except OSError as error:
            raise ConfigurationError(f"cannot write the results: {error}") from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a ``load.npz`` of :meth:`write`. Raises :class:`ConfigurationError` for another format."""
        with np.load(path) as stored:
            about = json.loads(str(stored["about"]))
            if (found := about.pop("format")) != FORMAT:
                raise ConfigurationError(f"{path} holds a load of format {found}, this is format {FORMAT}")
            about["plan"] = LoadPlan(**about["plan"])
            about["processes"] = [ProcessReport(**report) for report in about["processes"]]
            about["environment"] = Environment(**about["environment"])
            retried = Attempts.of(stored["attempts"], stored["retries"]) if "attempts" in stored else None
            return cls(**about, **{name: stored[name] for name in RAW}, attempts=retried)

    def _service_s(self) -> Floats:
        """Return the durations of the accepted attempts, seconds."""
        attempts = self if self.attempts is None else self.attempts
        return (attempts.done_s - attempts.sent_s)[np.equal(attempts.kind, Kind.ACCEPTED)]

    def _health(self) -> Health:
        lag_s = (self.sent_s - self.intended_s)[self.kind > Kind.DROPPED]
        p50_s, p99_s, longest_s = np.percentile(lag_s if lag_s.size else [0.0], [50, 99, 100]).round(6).tolist()
        return Health(
            lag_p50_s=p50_s,
            lag_p99_s=p99_s,
            lag_max_s=longest_s,
            cpu_share=[round(report.cpu_share, 3) for report in self.processes],
            peak_open_sockets=sum(report.peak_open_sockets for report in self.processes),
        )


def judge(health: Health, dropped: int, *, is_closed: bool) -> tuple[Verdict, str]:
    """Return whether the figures are the server's (``valid``) or may be the generator's own, and the reason."""
    reasons = []
    if health.lag_p99_s > MAX_LAG_P99_S:
        reasons.append(f"1 % of the requests left more than {duration(health.lag_p99_s)} late")
    if max(health.cpu_share, default=0.0) > MAX_CPU_SHARE:
        reasons.append(f"a load process used {100 * max(health.cpu_share):.0f} % of a core")
    if dropped:
        reasons.append(f"{dropped:,} requests were never sent because the cap of open sockets was reached")
    if reasons:
        return "generator-bound", "; ".join(reasons)
    if is_closed:
        return "valid", "no core was full; a closed loop sends less while the server is slow"
    return "valid", f"99 % left within {duration(health.lag_p99_s)} of their time, no core was full"


def remarks_on(service_s: Floats) -> list[str]:
    """Name delays that are easily taken for the server's, from the service times of accepted requests.

    The operating system drops a connection attempt that meets a full accept queue and repeats it after 1, 3, 7 s.
    """
    remarks = []
    for step_s in (1.0, 3.0, 7.0):
        after = int(np.count_nonzero((service_s >= step_s) & (service_s < step_s + 0.1)))
        before = int(np.count_nonzero((service_s >= step_s - 0.1) & (service_s < step_s)))
        if after > max(4 * before, service_s.size // 200, 1):
            remarks.append(
                f"{after:,} responses took just over {step_s:g} s: the operating system repeated a connection attempt "
                "because the accept queue was full; the application did not cause it"
            )
    return remarks


def _latest(times_s: Floats) -> float:
    """The latest time, 0.0 without any."""
    return float(np.nanmax(times_s, initial=0.0))


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 1) if seconds > 0 else 0.0


def _numbers(values: Floats) -> list[Any]:
    """Convert an array to JSON numbers, rounded to keep files small; NaN becomes None."""
    return [None if math.isnan(value) else round(value, 5) for value in values.tolist()]
