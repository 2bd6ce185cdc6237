"""What to fire, validated once: the only thing that travels from the parent to its load processes."""

import contextlib
import dataclasses
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from overload_demo.errors import ConfigurationError
from overload_demo.load.schedule import Shape, check_schedule, intended_times

MAX_PROCESSES = 64
MAX_REQUESTS = 10_000_000
PROBE_S = 0.5
MAX_EXPIRES_IN_S = 31_536_000  # a year, as the API has it


@dataclass(frozen=True)
class LoadPlan:
    """A load: where, how many, how fast, and what counts as accepted. Raises :class:`ConfigurationError` if unsound.

    ``url`` is the base URL, with or without ``path`` at its end; requests go to ``url + path``.
    ``connections`` set means *closed loop*: so many clients, each waiting for its answer before it sends again; rate
    and shape then play no part. ``processes`` unset lets the generator choose. ``timeout_s`` bounds one request, from
    its actual send to the last byte of its answer.
    ``max_duration_s`` stops the firing; later requests of the schedule are not sent and not counted as planned.
    ``expires_in_s`` goes into every body: a job that has not started within so many seconds is never run.
    Only addresses of this machine are allowed unless ``allow_remote``: a typo must not make this machine an attacker.
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
        object.__setattr__(self, "shape", check_schedule(self.shape, self.requests, self.rate_per_s))
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
        """Whether the load is a closed loop: clients that wait for their answer before they send again."""
        return self.connections is not None

    @property
    def target(self) -> str:
        """The URL that is posted to."""
        return self.url + self.path

    def schedule(self) -> npt.NDArray[np.float64]:
        """Return the intended send offsets that lie within ``max_duration_s``, seconds; a closed loop has none."""
        intended_s = intended_times(self.shape, self.requests, self.rate_per_s, self.seed)
        return intended_s if self.max_duration_s is None else intended_s[intended_s <= self.max_duration_s]

    def to_json(self) -> dict[str, object]:
        """The plan as JSON types; ``LoadPlan(**plan.to_json())`` is equal to it."""
        return dataclasses.asdict(self)


def _check_range(name: str, value: float | None, lowest: float, highest: float) -> None:
    if value is not None and not lowest <= value <= highest:
        raise ConfigurationError(f"{name} must be between {lowest:g} and {highest:g}, not {value:g}")


def _checked_url(url: str, path: str, *, allow_remote: bool) -> str:
    """Return the base URL: no trailing slash, no ``path``, and an address for a name, so that no look-up is measured.

    With https the name stays, as the certificate is checked against it. Raises :class:`ConfigurationError`.
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
    """Return the address of this machine that ``host`` stands for; None if any of its addresses is another machine's.

    Of several, as ``localhost`` may have, it is the first that accepts a connection, IPv4 before IPv6.
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
    """Whether a socket of this machine can have the address, and others can connect to it."""
    number = ipaddress.ip_address(address.partition("%")[0])
    if number.is_unspecified or number.is_multicast:
        return False
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return True
    return False
