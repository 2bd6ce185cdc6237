"""The stored form of a load: counts that add up, times, the generator's health, and a verdict on its own figures."""

import contextlib
import math
import platform
import re
from enum import IntEnum
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, model_validator

from overload_demo.load.limits import usable_cores
from overload_demo.load.plan import Floats

Verdict = Literal["valid", "generator-bound"]

MAX_LAG_P99_S = 0.010  # chosen
MAX_CPU_SHARE = 0.90  # chosen


class Kind(IntEnum):
    """How one request ended: the one list of names for load process, arrays and summary."""

    DROPPED = 0  # never sent: the cap of open sockets was reached
    ACCEPTED = 1  # the success status, and a job id
    OTHER_STATUS = 2
    REFUSED = 3
    RESET = 4
    CONNECT_TIMEOUT = 5
    READ_TIMEOUT = 6
    DISCONNECTED = 7  # closed before the response was complete
    ADDRESS_UNAVAILABLE = 8  # this machine had no ephemeral port left
    OTHER = 9  # anything else, also success without a job id


FAILURES = tuple(kind for kind in Kind if kind > Kind.OTHER_STATUS)


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


class Environment(BaseModel, frozen=True):
    """The machine and the versions a figure was measured with."""

    processor: str
    system: str
    cores: int
    python: str
    versions: dict[str, str]
    descriptor_limit: int

    @classmethod
    def here(cls, descriptor_limit: int) -> Self:
        """Describe this machine; ``descriptor_limit`` is that of a load process."""
        return cls(
            processor=_processor(),
            system=f"{platform.system()} {platform.release()}",
            cores=math.ceil(usable_cores()),
            python=platform.python_version(),
            versions={name: version(name) for name in ("overload-demo", "aiohttp", "numpy")},
            descriptor_limit=descriptor_limit,
        )

    def is_like(self, other: "Environment") -> bool:
        """Whether rates measured in both are comparable: equal processor, cores, system and Python."""
        return all(getattr(self, name) == getattr(other, name) for name in ("processor", "cores", "system", "python"))


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

    ``offered``, ``accepted`` and ``failed`` are per second, by intended time, time of the response and time of the
    failure. The response times belong to the requests *intended* in that bucket and accepted later. ``in_flight``
    counts requests sent and not ended at the end of the bucket.
    """

    start_s: list[float]
    offered_per_s: list[float]
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
    were due after the plan's longest duration.
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

    @property
    def failures(self) -> dict[str, int]:
        """Requests sent and not accepted, by outcome, zeros left out."""
        named = {f"status {code}": count for code, count in sorted(self.other_status.items())}
        named |= {kind.name.lower().replace("_", " "): getattr(self, kind.name.lower()) for kind in FAILURES}
        return {name: count for name, count in named.items() if count}

    @property
    def all_accepted(self) -> bool:
        """Whether every planned request was sent and accepted."""
        return self.accepted == self.planned

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.planned != self.sent + self.dropped:
            raise ValueError(f"planned {self.planned} is not sent {self.sent} + dropped {self.dropped}")
        outcomes = self.accepted + sum(self.failures.values())
        if self.sent != outcomes:
            raise ValueError(f"sent {self.sent} is not the sum of its outcomes, {outcomes}")
        return self


def judge(health: Health, dropped: int, *, is_closed: bool) -> tuple[Verdict, str]:
    """Return whether the figures are the server's (``valid``) or may be the generator's own, and the reason."""
    reasons = []
    if health.lag_p99_s > MAX_LAG_P99_S:
        reasons.append(f"1 % of the requests left more than {health.lag_p99_s * 1000:.0f} ms late")
    if max(health.cpu_share, default=0.0) > MAX_CPU_SHARE:
        reasons.append(f"a load process used {max(health.cpu_share):.0%} of a core")
    if dropped:
        reasons.append(f"{dropped:,} requests were never sent because the cap of open sockets was reached")
    if reasons:
        return "generator-bound", "; ".join(reasons)
    if is_closed:
        return "valid", "no core was full; a closed loop sends less while the server is slow"
    return "valid", f"99 % left within {health.lag_p99_s * 1000:.1f} ms of their time, no core was full"


def remarks_on(service_s: Floats) -> list[str]:
    """Name delays that are easily taken for the server's, from the service times of accepted requests.

    The kernel drops a connection attempt that meets a full accept queue and repeats it after 1, 3, 7 s.
    """
    remarks = []
    for step_s in (1.0, 3.0, 7.0):
        after = int(np.count_nonzero((service_s >= step_s) & (service_s < step_s + 0.1)))
        before = int(np.count_nonzero((service_s >= step_s - 0.1) & (service_s < step_s)))
        if after > max(4 * before, service_s.size // 200, 1):
            remarks.append(
                f"{after:,} responses took just over {step_s:g} s: the kernel repeated a connection attempt because "
                "the accept queue was full; the application did not cause it"
            )
    return remarks


def _processor() -> str:
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine()
