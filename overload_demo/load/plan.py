"""What to send, and when: validated once, fixed before the first request leaves.

The schedule does not depend on the responses: a server that stalls does not slow its own arrivals (an open loop).
"""

import contextlib
import ipaddress
import socket
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from overload_demo.errors import ConfigurationError

Floats = npt.NDArray[np.float64]

MAX_PROCESSES = 64
MAX_REQUESTS = 10_000_000
MAX_EXPIRES_IN_S = 31_536_000  # a year, the API's own limit
PROBE_S = 0.5
CALM_SHARE = 0.02
CALM_FRACTION_OF_RATE = 0.2


class Shape(StrEnum):
    """How the arrival rate runs over time."""

    CONSTANT = "constant"
    RAMP = "ramp"
    SPIKE = "spike"
    POISSON = "poisson"
    AT_ONCE = "at-once"


def intended_times(shape: str, requests: int, rate_per_s: float, seed: int = 0) -> Floats:
    """Return the send offset of each request, seconds from the start: float64, sorted, shape ``(requests,)``.

    ``constant``: one every ``1 / rate_per_s``. ``ramp``: the rate grows linearly from 0 to ``rate_per_s`` at the last
    request (offsets ``T * sqrt(i / n)``, ``T = 2 n / rate``). ``spike``: the first 2 % at a fifth of the rate, then the
    full rate. ``poisson``: exponential gaps with mean ``1 / rate_per_s``, by ``seed``. ``at-once``: all 0.
    Raises :class:`ConfigurationError` for an unknown shape, fewer than 1 request, or a rate that is not positive.
    """
    chosen = _checked_shape(shape, requests, rate_per_s)
    order = np.arange(requests, dtype=np.float64)
    match chosen:
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
    the load a *closed loop* of so many clients, each waiting for its response; rate and shape are then ignored.
    ``processes`` None: the generator chooses. ``timeout_s`` bounds one request, from its actual send to the last byte
    of its response. ``max_duration_s`` ends the sending; later requests are not sent and not counted as planned.
    ``expires_in_s`` goes into every body: a job not started within so many seconds is never run. Without
    ``allow_remote`` only addresses of this machine are accepted, so that a typo attacks no other host.
    """

    url: str
    requests: int
    rate_per_s: float = 1000.0
    shape: Shape = Shape.SPIKE
    seed: int = 0
    timeout_s: float = 30.0
    processes: int | None = None
    connections: int | None = None
    success_status: int = 202
    max_duration_s: float | None = None
    expires_in_s: float | None = None
    allow_remote: bool = False
    path: str = "/jobs"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checked_shape(self.shape, self.requests, self.rate_per_s))
        object.__setattr__(self, "url", _checked_url(self.url, self.path, allow_remote=self.allow_remote))
        _check_range("requests", self.requests, 1, MAX_REQUESTS)
        _check_range("seed", self.seed, 0, 2**63)
        _check_range("timeout", self.timeout_s, 0.001, 86_400)
        _check_range("processes", self.processes, 1, MAX_PROCESSES)
        _check_range("connections", self.connections, 1, 1_000_000)
        _check_range("success status", self.success_status, 200, 599)
        _check_range("longest duration", self.max_duration_s, 0.001, 86_400)
        _check_range("expires in", self.expires_in_s, 0.001, MAX_EXPIRES_IN_S)
        if (self.processes or 1) > self.requests:
            object.__setattr__(self, "processes", self.requests)

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


def _checked_shape(shape: str, requests: int, rate_per_s: float) -> Shape:
    if requests < 1:
        raise ConfigurationError(f"requests must be at least 1, not {requests}")
    if not 0 < rate_per_s < float("inf"):
        raise ConfigurationError(f"the rate must be a positive number of requests a second, not {rate_per_s:g}")
    try:
        return Shape(shape)
    except ValueError:
        raise ConfigurationError(f"unknown shape {shape!r}: choose one of {', '.join(Shape)}") from None


def _check_range(name: str, value: float | None, lowest: float, highest: float) -> None:
    if value is not None and not lowest <= value <= highest:
        raise ConfigurationError(f"{name} must be between {lowest:g} and {highest:g}, not {value:g}")


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
    if len(addresses) > 1:
        for address in addresses:
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
