"""What all parts of the queue share: the scripts, their keys, the check of replies, and the recent rates."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from overload_demo.config import Settings
from overload_demo.errors import Outcome, StoreUnavailableError
from overload_demo.rest import Argument, Script, ScriptCall
from overload_demo.rest.client import Upstash

# Chosen: steady at two seconds a job, and within half a minute of any change.
RATE_DECAY_S = 10.0
LONGEST_JOB_S = 86_400.0  # keeps every estimate finite
MAX_DEAD_ENTRIES = 10_000


# Always writes, also in a full store, and changes nothing that is read: see Upstash.run.
TOUCH = Script("touch", "if redis.call('EXPIRE', KEYS[1], '9999999999') == 0 then redis.call('SET', KEYS[1], 0) end")
# Writes nothing; a full store refuses it, as it refuses an enqueue.
PROBE = Script("probe", "redis.call('SETRANGE', KEYS[1], 0, '')")
_KEYS: dict[Script, tuple[str, ...]] = {TOUCH: ("seq",), PROBE: ("seq",)}


def _script(name: str, *keys: str) -> Script:
    folder = files(__package__).joinpath("lua")
    texts = [folder.joinpath(f"{one}.lua").read_text(encoding="utf-8") for one in ("prelude", name)]
    script = Script(name, "".join(texts))
    _KEYS[script] = keys
    return script


ENQUEUE = _script("enqueue", "queue", "seq", "stats", "workers")
LEASE = _script("lease", "queue", "leases", "owners", "dead", "stats", "workers")
EXTEND = _script("extend", "leases", "owners", "workers")
SETTLE = _script("settle", "queue", "leases", "owners", "dead", "stats")
STATUS = _script("status", "queue", "seq", "stats", "workers")
STATS = _script("stats", "queue", "leases", "stats", "workers", "dead")
CANCEL = _script("cancel", "stats")
REQUEUE = _script("requeue", "queue", "seq", "dead", "stats")
PURGE = _script("purge", "dead")
RECONCILE = _script("reconcile", "queue", "seq", "leases", "owners", "stats")
RECOUNT = _script("recount", "seq", "stats")

# The type of each key that a queue has once.
TYPES = {
    "queue": "list",
    "seq": "string",
    "leases": "zset",
    "owners": "hash",
    "workers": "hash",
    "stats": "hash",
    "dead": "list",
    "shard": "string",
}


@dataclass(frozen=True)
class Protocol:
    """Builds script calls with the right keys; ``prefix`` separates several queues in one store."""

    prefix: str = ""

    @classmethod
    def of(cls, upstash: Upstash, settings: Settings) -> "Protocol":
        """The protocol of one shard: its hash tag, if it has one, and the configured prefix begin every key."""
        return cls(upstash.address.tag + settings.overload_key_prefix)

    def key(self, name: str) -> str:
        """The full name of one of the ``jobs:*`` keys."""
        return f"{self.prefix}jobs:{name}"

    def pattern(self, start: str = "") -> str:
        """The SCAN pattern for keys that begin with the prefix and ``start``; escapes special characters."""
        return re.sub(r"([*?\[\]\\^])", r"\\\1", f"{self.prefix}{start}") + "*"

    def call(self, script: Script, *args: Argument) -> ScriptCall:
        """A call of ``script`` with all its keys and ``args``."""
        return ScriptCall(script, [self.key(name) for name in _KEYS[script]], args)


@dataclass(frozen=True)
class RecentRates:
    """Service time and drain rate of the last seconds, from the decaying sums in ``jobs:stats``.

    Each settled batch of n jobs that took b busy seconds sets ``jobs = jobs·f + n`` and ``busy_s = busy_s·f + b`` with
    f = exp(-Δt / time constant). In a steady state ``jobs`` tends to drain rate · time constant.
    """

    jobs: float
    busy_s: float
    age_s: float = 0.0

    @classmethod
    def read(cls, jobs: Any, busy_s: Any, at_s: Any = None, now_s: float = 0.0) -> "RecentRates":
        """The rates from stored fields; zero, as before the first job, if a field is missing or not a number."""
        try:
            age_s = 0.0 if at_s is None else max(0.0, now_s - float(at_s))
            numbers = float(jobs or 0), float(busy_s or 0), age_s
        except (ValueError, TypeError, OverflowError):
            return cls(0.0, 0.0)
        return cls(*numbers) if all(map(math.isfinite, numbers)) and min(numbers) >= 0 else cls(0.0, 0.0)

    def service_time_s(self, default_s: float) -> float:
        """Seconds of work a job; ``default_s`` before the first measurement."""
        return min(self.busy_s / self.jobs, LONGEST_JOB_S) if self.jobs > 0 else default_s

    def drain_rate_per_s(self) -> float:
        """Jobs settled a second by all workers; decays to 0 while none is settled."""
        return self.jobs * math.exp(-self.age_s / RATE_DECAY_S) / RATE_DECAY_S


def malformed(script: Script) -> StoreUnavailableError:
    """The error for a reply that is not of the script's form: what the call did is unknown."""
    return StoreUnavailableError(f"the store's reply to {script.name} is malformed", Outcome.UNKNOWN)


def age_s(created_at: str, now_s: float, unreadable: float) -> float:
    """Return the seconds from a stored time until ``now_s``, at least 0; ``unreadable`` if it is no time."""
    try:
        created = datetime.fromisoformat(created_at)
        return max(0.0, now_s - created.replace(tzinfo=created.tzinfo or UTC).timestamp())
    except (ValueError, OverflowError):
        return unreadable


def whole_number(text: object) -> int | None:
    """Return a stored whole number; None for anything else, and for numbers beyond every counter of the queue."""
    try:
        number = int(str(text))
    except ValueError:
        return None
    return number if abs(number) < 2**53 else None
