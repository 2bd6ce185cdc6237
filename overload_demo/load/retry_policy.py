"""When a client repeats a request that failed, and how many repeats all clients together may send."""

import contextlib
import dataclasses
import math
import random
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Protocol, Self

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from overload_demo.errors import ConfigurationError

DAY_S = 86_400
# Any other status says that a repeat would get the same response.
WORTH_A_REPEAT = frozenset({408, 425, 429, *range(500, 600)})


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


@contextlib.contextmanager
def in_one_line(cls: Any) -> Iterator[None]:
    """Raise the first mistake in the fields of the dataclass ``cls`` as a :class:`ConfigurationError` of one line."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"][-1] if first["loc"] else cls.__name__
        field = dataclasses.fields(cls)[place].name if isinstance(place, int) else place  # by position, or by name
        name = field.removesuffix("_per_s").removesuffix("_s").replace("_", " ")
        value = "" if first["type"] == "unexpected_keyword_argument" else f", not {first['input']!r}"
        raise ConfigurationError(f"{name}: {first['msg']}{value}") from None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RetryPolicy:
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

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        with in_one_line(cls):
            return validate(given)

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
