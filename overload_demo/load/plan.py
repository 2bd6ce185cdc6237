"""What to send, and when; what a client repeats: validated once, fixed before the first request leaves.

The schedule does not depend on the responses: a server that stalls does not slow its own arrivals (an open loop).
"""

import contextlib
import dataclasses
import ipaddress
import math
import random
import socket
from enum import StrEnum
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from overload_demo.config import YEAR_S
from overload_demo.errors import ConfigurationError

Floats = npt.NDArray[np.float64]

MAX_PROCESSES = 64
PROBE_S = 0.5
CALM_SHARE = 0.02
CALM_FRACTION_OF_RATE = 0.2
DAY_S = 86_400
# Any other status says that a repeat would get the same response.
WORTH_A_REPEAT = frozenset({408, 425, 429, *range(500, 600)})


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


class BackoffKind(StrEnum):
    """How the wait before a repeat grows: not at all, always ``base_s``, or doubling from ``base_s``."""

    NONE = "none"
    FIXED = "fixed"
    EXPONENTIAL = "exponential"


class Jitter(StrEnum):
    """``full``: wait a uniformly random part of the back-off, so that clients do not repeat all at one moment."""

    NONE = "none"
    FULL = "full"


class Until(StrEnum):
    """What a client waits for: the 202, or the result of its job, for which it polls ``GET /jobs/{job_id}``."""

    ACCEPTED = "accepted"
    DONE = "done"


class RetryBudget(Protocol):
    """Decides over each repeat. One method, so that a student can write one; see :class:`TokenBucket`."""

    def take(self, requests: int) -> bool:
        """Whether one more repeat may be sent, after ``requests`` first attempts in total."""
        ...


class TokenBucket:
    """A retry budget: each request adds ``ratio`` tokens, a repeat takes one, at most ``burst`` are kept.

    It starts full. Repeats are thus at most ``burst + ratio * requests``, whatever fails and however long.
    """

    def __init__(self, ratio: float, burst: float = 10.0) -> None:
        self._ratio, self._burst = ratio, burst
        self._tokens, self._requests = burst, 0

    def take(self, requests: int) -> bool:
        """Take a token; False without a whole one."""
        self._tokens = min(self._burst, self._tokens + self._ratio * (requests - self._requests))
        self._requests = requests
        has_token = self._tokens >= 1
        self._tokens -= has_token
        return has_token


@dataclass(frozen=True)
class OneLineErrors:
    """Fields whose first mistake is raised as a :class:`ConfigurationError` of one line."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = first["loc"][-1] if first["loc"] else cls.__name__
            field = dataclasses.fields(cls)[place].name if isinstance(place, int) else place  # by position, or by name
            name = field.removesuffix("_per_s").removesuffix("_s").replace("_", " ")
            value = "" if first["type"] == "unexpected_keyword_argument" else f", not {first['input']!r}"
            raise ConfigurationError(f"{name}: {first['msg']}{value}") from None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RetryPolicy(OneLineErrors):
    """What a client does when an attempt fails. Raises :class:`ConfigurationError` if invalid.

    An attempt fails by a broken connection, by the ``timeout_s`` of the plan, or by a status of
    :data:`WORTH_A_REPEAT`. A request has at most ``attempts`` of them (1: no repeat), none of which begins later than
    ``patience_s`` after its intended time or lasts longer than that. The wait before repeat *n* (1, 2, ...) is
    ``base_s`` (``fixed``) or ``base_s * 2 ** (n - 1)`` (``exponential``), at most ``cap_s``, with ``jitter`` of it; a
    ``Retry-After`` in seconds is waited in addition, unless ``retry_after`` is off. ``budget`` is the ratio of repeats
    to requests that a :class:`TokenBucket` with ``burst`` tokens allows, None: no budget. ``idempotency_key`` sends the
    same key with each attempt of a request, so that they all are one job; without it each accepted attempt is a job of
    its own. ``until="done"``: an attempt succeeds when its job is done within the time-out, polled every ``poll_s``.
    """

    attempts: int = Field(default=4, ge=1, le=100)
    backoff: BackoffKind = BackoffKind.EXPONENTIAL
    base_s: float = Field(default=0.1, ge=0.001, le=DAY_S, allow_inf_nan=False)
    cap_s: float = Field(default=10.0, ge=0.001, le=DAY_S, allow_inf_nan=False)
    jitter: Jitter = Jitter.FULL
    budget: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    burst: float = Field(default=10.0, ge=1, le=1_000_000, allow_inf_nan=False)
    patience_s: float = Field(default=60.0, ge=0.001, le=DAY_S, allow_inf_nan=False)
    retry_after: bool = True
    idempotency_key: bool = True
    until: Until = Until.ACCEPTED
    poll_s: float = Field(default=0.2, ge=0.001, le=DAY_S, allow_inf_nan=False)

    @classmethod
    def names(cls) -> dict[str, str]:
        """Return the fields by their names in :meth:`parse`."""
        return {field.removesuffix("_s"): field for field in cls.__dataclass_fields__}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``attempts=4,backoff=exponential,base=0.1``: the fields without ``_s``; words for switches: on, off.

        Raises :class:`ConfigurationError` for an unknown or repeated name and for an invalid value.
        """
        names = cls.names()
        given: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = (word.strip() for word in part.partition("="))
            if name not in names or not equals:
                raise ConfigurationError(f"retry: NAME=VALUE with a name of {', '.join(names)}, not {part.strip()!r}")
            if names[name] in given:
                raise ConfigurationError(f"retry: {name} is given twice")
            given[names[name]] = value
        return cls(**given)

    def backoff_s(self, repeat: int, chance: random.Random) -> float:
        """Return the wait before repeat ``repeat`` (from 1), seconds, without a ``Retry-After``."""
        match self.backoff:
            case BackoffKind.NONE:
                return 0.0
            case BackoffKind.FIXED:
                longest_s = self.base_s
            case BackoffKind.EXPONENTIAL:
                longest_s = math.ldexp(self.base_s, repeat - 1)
        longest_s = min(longest_s, self.cap_s)
        return chance.uniform(0, longest_s) if self.jitter is Jitter.FULL else longest_s

    def new_budget(self, processes: int = 1) -> RetryBudget | None:
        """Return the bucket of one of ``processes`` load processes; they divide ``burst``, each has at least 1."""
        return None if self.budget is None else TokenBucket(self.budget, max(1.0, self.burst / processes))


@dataclass(frozen=True)
class LoadPlan(OneLineErrors):
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
    shown = "" if "@" in url else f", not {url!r}"  # it may contain a password
    wrong = ConfigurationError(f"the URL must look like http://127.0.0.1:8000{shown}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or "@" in parts.netloc:
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
