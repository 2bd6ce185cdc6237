"""What was measured: raw arrays first, one element a request; summaries and series are computed from them later.

All times are seconds from the common start of the load, float64; what never happened is NaN.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from overload_demo.errors import ConfigurationError
from overload_demo.load.plan import LoadPlan
from overload_demo.load.schedule import Shape
from overload_demo.load.summary import Environment, Floats, Health, LoadSummary, Percentiles, judge, remarks_on

FORMAT = 1


class Kind(IntEnum):
    """How one request ended: the one list of names, used by the load process, the arrays and the summary."""

    DROPPED = 0  # never left: the cap of open sockets was reached
    ACCEPTED = 1  # answered with the status that means success, and with a job id
    OTHER_STATUS = 2  # answered with another status
    REFUSED = 3  # nobody listens
    RESET = 4
    CONNECT_TIMEOUT = 5
    READ_TIMEOUT = 6
    DISCONNECTED = 7  # closed before the answer was complete
    ADDRESS_UNAVAILABLE = 8  # no ephemeral port was left on this machine
    OTHER = 9  # anything else, also success without a job id


_RAW = ("intended_s", "sent_s", "done_s", "status", "kind", "job_ids")


@dataclass(frozen=True)
class ProcessReport:
    """What one load process says about itself: CPU seconds a second while sending, most requests in flight."""

    cpu_share: float
    peak_open_sockets: int


@dataclass(frozen=True)
class LoadSeries:
    """A load over time: one element a bucket, float64; NaN where a bucket holds no accepted request.

    ``offered``, ``accepted`` and ``failed`` are per second, by intended time, time of the answer and time of the
    failure. ``response_p50_s`` and ``response_p99_s`` belong to the requests *intended* in that bucket and accepted
    later. ``in_flight`` is the number of requests sent and not ended at the end of the bucket.
    """

    bucket_s: float
    start_s: Floats
    offered_per_s: Floats
    accepted_per_s: Floats
    failed_per_s: Floats
    in_flight: Floats
    response_p50_s: Floats
    response_p99_s: Floats


@dataclass(frozen=True)
class LoadResult:
    """A finished load: arrays of shape ``(planned,)`` in the order of the schedule.

    ``status`` is int16 (0: no answer), ``kind`` uint8 (:class:`Kind`), ``job_ids`` fixed-width bytes (empty unless
    accepted). ``started_at`` is the wall clock of second 0, ``started_mono_s`` the monotonic one (CLOCK_MONOTONIC).
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
        """Time from the intended send to the end, seconds: what a client experiences, waiting to send included."""
        return self.done_s - self.intended_s

    @property
    def service_s(self) -> Floats:
        """Time from the actual send to the end, seconds."""
        return self.done_s - self.sent_s

    def summary(self) -> LoadSummary:
        """Count, measure and judge; the counts are checked to add up."""
        counts = Counter(self.kind.tolist())
        dropped, accepted = counts[Kind.DROPPED], self.accepted
        by_code = Counter(self.status[self.kind == Kind.OTHER_STATUS].tolist())
        health = self._health()
        verdict, reason = judge(health, dropped, is_closed=self.plan.is_closed)
        planned, service_s = self.kind.size, self.service_s[accepted]
        ended_s, last_sent_s = _latest(self.done_s), _latest(self.sent_s)
        return LoadSummary(
            mode="closed loop" if self.plan.is_closed else "open loop",
            planned=planned,
            sent=planned - dropped,
            dropped=dropped,
            not_fired=self.plan.requests - planned,
            accepted=counts[Kind.ACCEPTED],
            other_status=dict(by_code),
            **{kind.name.lower(): counts[kind] for kind in Kind if kind > Kind.OTHER_STATUS},
            duration_s=round(ended_s, 3),
            sent_per_s=_rate(planned - dropped, last_sent_s),
            accepted_per_s=_rate(counts[Kind.ACCEPTED], _latest(self.done_s[accepted])),
            response_time=Percentiles.of(self.response_s[accepted]),
            service_time=Percentiles.of(service_s),
            health=health,
            verdict=verdict,
            reason=reason,
            remarks=[*self._remark_at_once(last_sent_s), *remarks_on(service_s)],
            environment=self.environment,
        )

    def series(self, bucket_s: float = 1.0) -> LoadSeries:
        """Cut the load into buckets of ``bucket_s`` seconds, from 0 to the end of the last request."""
        ended_s = max(_latest(self.done_s), _latest(self.intended_s))
        buckets = int(ended_s // bucket_s) + 1
        edges_s = np.arange(buckets + 1, dtype=np.float64) * bucket_s
        accepted, failed = self.accepted, self.kind > Kind.ACCEPTED

        def per_s(times_s: Floats) -> Floats:
            return np.histogram(times_s, edges_s)[0] / bucket_s

        sent, done = np.sort(self.sent_s[self.kind > Kind.DROPPED]), np.sort(self.done_s[self.kind > Kind.DROPPED])
        ends_s = edges_s[1:]
        p50_s, p99_s = _percentiles_by_bucket(
            self.intended_s[accepted], self.response_s[accepted], buckets=buckets, bucket_s=bucket_s
        )
        return LoadSeries(
            bucket_s=bucket_s,
            start_s=edges_s[:-1],
            offered_per_s=per_s(self.intended_s),
            accepted_per_s=per_s(self.done_s[accepted]),
            failed_per_s=per_s(self.done_s[failed]),
            in_flight=(np.searchsorted(sent, ends_s) - np.searchsorted(done, ends_s)).astype(np.float64),
            response_p50_s=p50_s,
            response_p99_s=p99_s,
        )

    def save(self, path: Path) -> None:
        """Write everything to one ``.npz`` file."""
        about = {
            "format": FORMAT,
            "plan": self.plan.to_json(),
            "processes": [asdict(report) for report in self.processes],
            "environment": self.environment.model_dump(),
            "started_at": self.started_at,
            "started_mono_s": self.started_mono_s,
        }
        raw: dict[str, Any] = {name: getattr(self, name) for name in _RAW}
        np.savez_compressed(path, about=np.array(json.dumps(about)), **raw)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote. Raises :class:`ConfigurationError` when the file is of another format."""
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

    def _remark_at_once(self, last_sent_s: float) -> list[str]:
        if self.plan.shape is not Shape.AT_ONCE or self.plan.is_closed:
            return []
        processes = len(self.processes)
        return [
            f"at once means as fast as {processes} load processes open sockets; the last left at {last_sent_s:.2f} s"
        ]

    def _health(self) -> Health:
        lag_s = (self.sent_s - self.intended_s)[self.kind > Kind.DROPPED]
        lag = Percentiles.of(lag_s)
        return Health(
            lag_p50_s=lag.p50_s if lag else 0.0,
            lag_p99_s=lag.p99_s if lag else 0.0,
            lag_max_s=lag.max_s if lag else 0.0,
            cpu_share=[round(report.cpu_share, 3) for report in self.processes],
            peak_open_sockets=sum(report.peak_open_sockets for report in self.processes),
        )


def _latest(times_s: Floats) -> float:
    """The latest of some times, 0.0 when there is none."""
    known = times_s[~np.isnan(times_s)]
    return float(known.max()) if known.size else 0.0


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 1) if seconds > 0 else 0.0


def _percentiles_by_bucket(times_s: Floats, values: Floats, *, buckets: int, bucket_s: float) -> tuple[Floats, Floats]:
    """The median and the 99th percentile of ``values`` in each bucket of ``times_s``; NaN for an empty bucket."""
    bucket = (times_s // bucket_s).astype(int)
    order = np.argsort(bucket, kind="stable")
    groups = np.split(values[order], np.searchsorted(bucket[order], np.arange(1, buckets)))
    both = [np.percentile(group, [50, 99]) if group.size else (np.nan, np.nan) for group in groups]
    p50, p99 = np.array(both, dtype=np.float64).T
    return p50, p99
