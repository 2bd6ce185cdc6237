"""When each request is meant to be sent: fixed before the first one leaves.

A schedule that does not look at the answers is what makes the load open: a server that stalls does not slow its own
arrivals down, as it would with clients that wait for their answer first.
"""

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from overload_demo.errors import ConfigurationError

CALM_SHARE = 0.02
CALM_FRACTION_OF_RATE = 0.2


class Shape(StrEnum):
    """How the arrival rate runs over time."""

    CONSTANT = "constant"
    RAMP = "ramp"
    SPIKE = "spike"
    POISSON = "poisson"
    AT_ONCE = "at-once"


def intended_times(shape: str, requests: int, rate_per_s: float, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return the send offset of each request, seconds from the start: float64, sorted, shape ``(requests,)``.

    ``constant``: one request every ``1 / rate_per_s``. ``ramp``: the rate grows linearly from 0 and reaches
    ``rate_per_s`` with the last request (offsets ``T * sqrt(i / n)``, ``T = 2 n / rate``). ``spike``: the first 2 % at
    a fifth of the rate, the calm before, then a burst of all others at the full rate. ``poisson``: independent
    exponential gaps with mean ``1 / rate_per_s``, the same for the same ``seed``. ``at-once``: all 0.
    Raises :class:`ConfigurationError` for an unknown shape, fewer than 1 request, or a rate that is not positive.
    """
    chosen = check_schedule(shape, requests, rate_per_s)
    order = np.arange(requests, dtype=np.float64)
    match chosen:
        case Shape.CONSTANT:
            return order / rate_per_s
        case Shape.RAMP:
            return 2 * requests / rate_per_s * np.sqrt(order / requests)
        case Shape.SPIKE:
            calm = int(requests * CALM_SHARE)
            gaps_s = np.full(requests, 1 / rate_per_s)
            gaps_s[:calm] /= CALM_FRACTION_OF_RATE
            return np.concatenate(([0.0], np.cumsum(gaps_s[:-1])))
        case Shape.POISSON:
            return np.cumsum(np.random.default_rng(seed).exponential(1 / rate_per_s, requests))
        case Shape.AT_ONCE:
            return np.zeros(requests)


def check_schedule(shape: str, requests: int, rate_per_s: float) -> Shape:
    """Return ``shape`` as a :class:`Shape`, or raise :class:`ConfigurationError` with one line saying what is wrong."""
    if requests < 1:
        raise ConfigurationError(f"requests must be at least 1, not {requests}")
    if not 0 < rate_per_s < float("inf"):
        raise ConfigurationError(f"the rate must be a positive number of requests a second, not {rate_per_s:g}")
    try:
        return Shape(shape)
    except ValueError:
        known = ", ".join(Shape)
        raise ConfigurationError(f"unknown shape {shape!r}: choose one of {known}") from None
