"""What was measured: raw arrays with one element a request, from which summaries and series are computed.

All times are seconds from the common start of the load, float64, NaN for what did not happen.
"""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from overload_demo.errors import ConfigurationError
from overload_demo.load.plan import Floats, LoadPlan, Shape
from overload_demo.load.summary import (
    FAILURES,
    Environment,
    Health,
    Kind,
    LoadSeries,
    LoadSummary,
    Percentiles,
    judge,
    remarks_on,
)

FORMAT = 1
_RAW = ("intended_s", "sent_s", "done_s", "status", "kind", "job_ids")

# Response times of a load under way are counted in bins 12 % wide, which several processes can add up.
LOWEST_S = 1e-4
BINS_PER_DECADE = 20


def bin_of(seconds: float) -> int:
    """Return the bin of a response time; the first one holds everything below 0.1 ms."""
    return int(math.log10(max(seconds, LOWEST_S) / LOWEST_S) * BINS_PER_DECADE)


def longest_in(number: int) -> float:
    """Return the upper edge of a bin, seconds."""
    return float(LOWEST_S * 10 ** ((number + 1) / BINS_PER_DECADE))


@dataclass(frozen=True)
class ProcessReport:
    """One load process's own numbers: CPU seconds a second while sending, most requests in flight."""

    cpu_share: float
    peak_open_sockets: int


@dataclass(frozen=True)
class LoadResult:
    """A finished load: arrays of shape ``(planned,)`` in the order of the schedule.

    ``status`` is int16 (0: no response), ``kind`` uint8 (:class:`Kind`), ``job_ids`` fixed-width bytes (empty unless
    accepted). ``started_at`` is the wall clock of second 0, ``started_mono_s`` its CLOCK_MONOTONIC.
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

    @property
    def accepted(self) -> npt.NDArray[np.bool_]:
        """Which requests were accepted, shape ``(planned,)``."""
        return np.equal(self.kind, Kind.ACCEPTED)

    @property
    def accepted_ids(self) -> list[str]:
        """The ids of all accepted jobs, in the order of the schedule."""
        return [job_id.decode() for job_id in self.job_ids[self.accepted].tolist()]

    @property
    def response_s(self) -> Floats:
        """Time from the intended send to the end, seconds, send delay included."""
        return self.done_s - self.intended_s

    @property
    def service_s(self) -> Floats:
        """Time from the actual send to the end, seconds."""
        return self.done_s - self.sent_s

    def summary(self) -> LoadSummary:
        """Count and judge. Raises ValueError if the counts do not add up."""
        counts = Counter(self.kind.tolist())
        dropped, accepted = counts[Kind.DROPPED], self.accepted
        by_code = Counter(self.status[self.kind == Kind.OTHER_STATUS].tolist())
        health = self._health()
        verdict, reason = judge(health, dropped, is_closed=self.plan.is_closed)
        planned, service_s = self.kind.size, self.service_s[accepted]
        ended_s, last_sent_s = _latest(self.done_s), _latest(self.sent_s)
        remarks = remarks_on(service_s)
        if self.plan.shape is Shape.AT_ONCE and not self.plan.is_closed:
            means = f"at once means as fast as {len(self.processes)} load processes open sockets"
            remarks.insert(0, f"{means}; the last request was sent at {last_sent_s:.2f} s")
        return LoadSummary(
            mode="closed loop" if self.plan.is_closed else "open loop",
            planned=planned,
            sent=planned - dropped,
            not_fired=self.plan.requests - planned,
            other_status=dict(by_code),
            **{kind.name.lower(): counts[kind] for kind in (Kind.DROPPED, Kind.ACCEPTED, *FAILURES)},
            duration_s=round(ended_s, 3),
            sent_per_s=_rate(planned - dropped, last_sent_s),
            accepted_per_s=_rate(counts[Kind.ACCEPTED], _latest(self.done_s[accepted])),
            response_time=Percentiles.of(self.response_s[accepted]),
            service_time=Percentiles.of(service_s),
            health=health,
            verdict=verdict,
            reason=reason,
            remarks=remarks,
            environment=self.environment,
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

        p50_s, p99_s = _percentiles_by_bucket(self.intended_s[accepted], self.response_s[accepted], edges_s)
        return LoadSeries(
            start_s=_numbers(edges_s[:-1]),
            offered_per_s=per_s(self.intended_s),
            accepted_per_s=per_s(self.done_s[accepted]),
            failed_per_s=per_s(self.done_s[self.kind > Kind.ACCEPTED]),
            in_flight=_numbers(before(self.sent_s) - before(self.done_s)),
            response_p50_s=_numbers(p50_s),
            response_p99_s=_numbers(p99_s),
        )

    def write(self, folder: Path) -> None:
        """Write the raw arrays (``load.npz``) and the summary (``load.json``) into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.save(folder / "load.npz")
        document = {"plan": asdict(self.plan), "summary": self.summary().model_dump(mode="json")}
        (folder / "load.json").write_text(json.dumps(document, indent=2) + "\n")

    def save(self, path: Path) -> None:
        """Write everything to one ``.npz`` file."""
        about = {
            "format": FORMAT,
            "plan": asdict(self.plan),
            "processes": [asdict(report) for report in self.processes],
            "environment": self.environment.model_dump(),
            "started_at": self.started_at,
            "started_mono_s": self.started_mono_s,
        }
        raw: dict[str, Any] = {name: getattr(self, name) for name in _RAW}
        np.savez_compressed(path, about=np.array(json.dumps(about)), **raw)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of :meth:`save`. Raises :class:`ConfigurationError` for another format."""
        with np.load(path) as stored:
            about = json.loads(str(stored["about"]))
            if about["format"] != FORMAT:
                raise ConfigurationError(f"{path} holds a load of format {about['format']}, this is format {FORMAT}")
            return cls(
                plan=LoadPlan(**about["plan"]),
                processes=[ProcessReport(**report) for report in about["processes"]],
                environment=Environment(**about["environment"]),
                started_at=about["started_at"],
                started_mono_s=about["started_mono_s"],
                **{name: stored[name] for name in _RAW},
            )

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


def _latest(times_s: Floats) -> float:
    """The latest time, 0.0 without any."""
    return float(np.nanmax(times_s, initial=0.0))


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 1) if seconds > 0 else 0.0


def _numbers(values: Floats) -> list[Any]:
    """Convert an array to JSON numbers, rounded to keep files small; NaN becomes None."""
    return [None if math.isnan(value) else round(value, 5) for value in values.tolist()]


def _percentiles_by_bucket(times_s: Floats, values: Floats, edges_s: Floats) -> tuple[Floats, Floats]:
    """Return median and 99th percentile of ``values`` in each bucket of ``times_s``; NaN for an empty one."""
    order = np.argsort(times_s, kind="stable")
    groups = np.split(values[order], np.searchsorted(times_s[order], edges_s[1:-1]))
    both = [np.percentile(group, [50, 99]) if group.size else (np.nan, np.nan) for group in groups]
    p50, p99 = np.array(both, dtype=np.float64).T
    return p50, p99
