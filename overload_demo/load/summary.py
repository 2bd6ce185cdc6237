"""What a load amounts to: counts that must add up, times, the generator's own health, and a verdict.

Plain models without any I/O, so that a recorded summary can be validated wherever it is read.
"""

import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from overload_demo.load.limits import usable_cores

Floats = npt.NDArray[np.float64]
Verdict = Literal["valid", "generator-bound"]

MAX_LAG_P99_S = 0.010
MAX_CPU_SHARE = 0.90


class Percentiles(BaseModel):
    """Percentiles of a set of durations, seconds (numpy's linear interpolation)."""

    model_config = ConfigDict(frozen=True)

    count: int
    p50_s: float
    p90_s: float
    p99_s: float
    p999_s: float
    max_s: float

    @classmethod
    def of(cls, durations_s: Floats) -> Self | None:
        """Return the percentiles of an array of any length; None for an empty one."""
        if not durations_s.size:
            return None
        p50, p90, p99, p999, highest = np.percentile(durations_s, [50, 90, 99, 99.9, 100]).round(6).tolist()
        return cls(count=durations_s.size, p50_s=p50, p90_s=p90, p99_s=p99, p999_s=p999, max_s=highest)


class Environment(BaseModel):
    """The machine and the versions a figure was measured with."""

    model_config = ConfigDict(frozen=True)

    processor: str
    system: str
    cores: int
    python: str
    versions: dict[str, str]
    descriptor_limit: int

    @classmethod
    def here(cls, descriptor_limit: int) -> Self:
        """Describe this machine; ``descriptor_limit`` is what a load process may open."""
        return cls(
            processor=_processor(),
            system=f"{platform.system()} {platform.release()}",
            cores=math.ceil(usable_cores()),
            python=platform.python_version(),
            versions={name: version(name) for name in ("overload-demo", "aiohttp", "numpy")},
            descriptor_limit=descriptor_limit,
        )

    def is_like(self, other: "Environment") -> bool:
        """Whether rates measured in both may be compared as they are: equal processor, cores, system and Python."""
        mine = (self.processor, self.cores, self.system, self.python)
        return mine == (other.processor, other.cores, other.system, other.python)


class Health(BaseModel):
    """What the generator says about itself.

    Lag is actual minus intended send time, seconds. ``cpu_share`` holds one value a process: CPU seconds a second while
    it was sending. ``peak_open_sockets`` is the sum over processes of requests in flight at once, each on a socket of
    its own.
    """

    model_config = ConfigDict(frozen=True)

    lag_p50_s: float
    lag_p99_s: float
    lag_max_s: float
    cpu_share: list[float]
    peak_open_sockets: int


class LoadSummary(BaseModel):
    """Every request accounted for, and the times of those accepted; building one that does not add up fails.

    ``planned = sent + dropped`` (dropped: the cap of open sockets was reached, so it never left), and ``sent`` is the
    sum of the outcomes. ``other_status`` counts answers with another status by code. ``response_time`` runs from the
    *intended* send time, ``service_time`` from the actual one; both of accepted requests only. ``not_fired`` requests
    lay beyond the plan's longest duration.
    """

    model_config = ConfigDict(frozen=True)

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
        """What was sent and not accepted, by name, zeros left out."""
        named = {f"status {code}": count for code, count in sorted(self.other_status.items())}
        for name in FAILURE_NAMES:
            named[name.replace("_", " ")] = getattr(self, name)
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


FAILURE_NAMES = (
    "refused",
    "reset",
    "connect_timeout",
    "read_timeout",
    "disconnected",
    "address_unavailable",
    "other",
)


def judge(health: Health, dropped: int, *, is_closed: bool) -> tuple[Verdict, str]:
    """Say whether the figures are the server's (``valid``) or may be the generator's own, and why, in one line."""
    reasons = []
    if health.lag_p99_s > MAX_LAG_P99_S:
        reasons.append(f"1 % of the requests left more than {health.lag_p99_s * 1000:.0f} ms late")
    if max(health.cpu_share, default=0.0) > MAX_CPU_SHARE:
        reasons.append(f"a load process used {max(health.cpu_share):.0%} of a core")
    if dropped:
        reasons.append(f"{dropped:,} requests found the cap of open sockets reached and never left")
    if reasons:
        return "generator-bound", "; ".join(reasons)
    if is_closed:
        return "valid", "no core was full; mind that a closed loop sends less while the server is slow"
    return "valid", f"99 % left within {health.lag_p99_s * 1000:.1f} ms of their time, no core was full"


def remarks_on(service_s: Floats) -> list[str]:
    """Point out what is easily taken for the server's doing, from the service times of accepted requests.

    A connection attempt that meets a full accept queue is dropped by the kernel and repeated after 1, 3, 7 s.
    """
    remarks = []
    for step_s in (1.0, 3.0, 7.0):
        after = int(np.count_nonzero((service_s >= step_s) & (service_s < step_s + 0.1)))
        before = int(np.count_nonzero((service_s >= step_s - 0.1) & (service_s < step_s)))
        if after > max(4 * before, service_s.size // 200, 1):
            remarks.append(
                f"{after:,} answers took just over {step_s:g} s: that is the kernel repeating a connection attempt "
                "because the accept queue was full, not the application"
            )
    return remarks


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
