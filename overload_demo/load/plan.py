"""What to send, and when: validated once, fixed before the first request leaves.

The schedule does not depend on the responses: a server that stalls does not slow its own arrivals (an open loop).
"""

import contextlib
import ipaddress
import socket
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from pydantic import Field, ModelWrapValidatorHandler, model_validator
from pydantic.dataclasses import dataclass

from overload_demo.config import YEAR_S
from overload_demo.errors import ConfigurationError
from overload_demo.load.retry_policy import DAY_S, RetryPolicy, in_one_line

Floats = npt.NDArray[np.float64]

MAX_PROCESSES = 64
PROBE_S = 0.5
CALM_SHARE = 0.02
CALM_FRACTION_OF_RATE = 0.2


def duration(seconds: float) -> str:
    """Return a time with about two digits: in milliseconds below a second, then in seconds."""
    if seconds >= 0.9995:
        return f"{seconds:,.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2g} ms"


class Shape(StrEnum):
    """How the arrival rate runs over time."""

    CONSTANT = "constant"
    RAMP = "ramp"
    SPIKE = "spike"
    POISSON = "poisson"
    AT_ONCE = "at-once"


def intended_times(shape: Shape, requests: int, rate_per_s: float, seed: int = 0) -> Floats:
    """Return the send offset of each request, seconds from the start: float64, sorted, shape ``(requests,)``.

    ``constant``: one every ``1 / rate_per_s``. ``ramp``: the rate grows linearly from 0 to ``rate_per_s`` at the last
    request (offsets ``T * sqrt(i / n)``, ``T = 2 n / rate``). ``spike``: the first 2 % at a fifth of the rate, then the
    full rate. ``poisson``: exponential gaps with mean ``1 / rate_per_s``, by ``seed``. ``at-once``: all 0.
    """
    order = np.arange(requests, dtype=np.float64)
    match shape:
        case Shape.CONSTANT:
            return order / rate_per_s
        case Shape.RAMP:
            return 2 * requests / rate_per_s * np.sqrt(order / requests)
        case Shape.SPIKE:
            gaps_s = np.full(requests, 1 / rate_per_s)
            gaps_s[: int(requests * CALM_SHARE)] /= CALM_FRACTION_OF_RATE
            return np.concatenate(([0.0], np.cumsum(gaps_s[:-1])))
        case Shape.POISSON:
            return np.cumsum(np.random.default_rng(seed).exponential(1 / rate_per_s, requests))
        case Shape.AT_ONCE:
            return np.zeros(requests)


@dataclass(frozen=True)
class LoadPlan:
    """A load: where, how many, how fast, and what counts as accepted. Raises :class:`ConfigurationError` if invalid.

    ``url`` is the base URL, with or without ``path`` at its end; requests go to ``url + path``. ``connections`` makes
    the load a *closed loop* of so many clients, each waiting for its response; rate and shape are then ignored. Such a
    client begins a request at most every ``pace_s`` seconds, as locust's ``constant_pacing`` does, later if it waits.
    ``processes`` None: the generator chooses. ``timeout_s`` bounds one request, from its actual send to the last byte
    of its response. ``max_duration_s`` ends the sending; later requests are not sent and not counted as planned.
    ``expires_in_s`` goes into every body: a job not started within so many seconds is never run. Without
    ``allow_remote`` only addresses of this machine are accepted, so that a typo attacks no other host. ``retry``: what
    a client does when an attempt fails, ``timeout_s`` being that of one attempt; None: it sends each request once.
    """

    url: str
    requests: int = Field(ge=1, le=10_000_000)
    rate_per_s: float = Field(default=1000.0, gt=0, allow_inf_nan=False)
    shape: Shape = Shape.SPIKE
    seed: int = Field(default=0, ge=0, lt=2**63)
    timeout_s: float = Field(default=30.0, ge=0.001, le=DAY_S)
    processes: int | None = Field(default=None, ge=1, le=MAX_PROCESSES)
    connections: int | None = Field(default=None, ge=1, le=1_000_000)
    pace_s: float = Field(default=0.0, ge=0, le=DAY_S, allow_inf_nan=False)
    success_status: int = Field(default=202, ge=200, le=599)
    max_duration_s: float | None = Field(default=None, ge=0.001, le=DAY_S)
    expires_in_s: float | None = Field(default=None, ge=0.001, le=YEAR_S)  # the API's own limit
    allow_remote: bool = False
    retry: RetryPolicy | None = None
    path: str = "/jobs"

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked_url(self.url, self.path, allow_remote=self.allow_remote))

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        with in_one_line(cls):
            return validate(given)

    @property
    def is_closed(self) -> bool:
        """Whether the load is a closed loop."""
        return self.connections is not None

    @property
    def target(self) -> str:
        """The URL of the requests."""
        return self.url + self.path

    def schedule(self) -> Floats:
        """Return the intended send offsets within ``max_duration_s``, seconds; a closed loop has none."""
        intended_s = intended_times(self.shape, self.requests, self.rate_per_s, self.seed)
        return intended_s if self.max_duration_s is None else intended_s[intended_s <= self.max_duration_s]


def _checked_url(url: str, path: str, *, allow_remote: bool) -> str:
    """Return the base URL without a trailing slash or ``path``, its host resolved, so that no lookup is measured.

    With https the name stays, because the certificate is checked against it. Raises :class:`ConfigurationError`.
    """
    wrong = ConfigurationError(f"the URL must look like http://127.0.0.1:8000, not {url!r}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or parts.username:
        raise wrong
    own = _own_address(host, port or (443 if parts.scheme == "https" else 80))
    if own is None and not allow_remote:
        raise ConfigurationError(f"{host} is not this machine: a remote target needs --allow-remote")
    if own is not None and parts.scheme == "http":
        shown = f"[{own}]" if ":" in own else own
        parts = parts._replace(netloc=shown if port is None else f"{shown}:{port}")
    return parts.geturl().rstrip("/").removesuffix(path)


def _own_address(host: str, port: int) -> str | None:
    """Resolve ``host`` to an address of this machine; None if any of its addresses belongs to another machine.

    Of several, as ``localhost`` may have, choose the first that accepts a connection, IPv4 before IPv6.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    addresses = [str(address[0]) for family, *_, address in sorted(found, key=lambda one: one[0] != socket.AF_INET)]
    if not all(map(_is_own, addresses)):
        return None
    for address in addresses[1:] and addresses:
        with contextlib.suppress(OSError), socket.create_connection((address, port), PROBE_S):
            return address
    return addresses[0]


def _is_own(address: str) -> bool:
    """Whether a socket of this machine can be bound to the address and be connected to."""
    number = ipaddress.ip_address(address.partition("%")[0])
    if number.is_unspecified or number.is_multicast:
        return False
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return True
    return False
