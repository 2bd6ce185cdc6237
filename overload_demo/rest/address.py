"""Where a store answers, and what INFO reports about its server. Loads no HTTP client."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import SecretStr

from overload_demo.errors import ConfigurationError

Durability = Literal["always", "everysec", "none", "unknown"]
LOADING = "it is loading its data"


@dataclass(frozen=True)
class Address:
    """Where a store answers, its token (masked in reprs), and when an acknowledged write is on disk.

    ``url`` is an origin without a path, or ``unix://`` and the path of an HTTP socket that belongs to this user.
    """

    url: str
    token: SecretStr
    durability: Durability = "unknown"

    @cached_property
    def socket(self) -> str:
        """The path of the socket; empty for an origin."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else ""

    @cached_property
    def origin(self) -> str:
        """The start of every request URL."""
        return "http://localhost" if self.socket else self.url


def info_facts(info: str) -> dict[str, str]:
    """The ``name:value`` lines of an INFO reply."""
    return {name: value for name, mark, value in (line.partition(":") for line in info.splitlines()) if mark}


def refuse_unsafe(facts: dict[str, str]) -> None:
    """Raise :class:`ConfigurationError` if INFO reports eviction or cluster mode, which can lose jobs."""
    if facts.get("cluster_enabled") == "1":
        raise ConfigurationError("the server is a cluster; the queue needs a single server")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory") != "0":
        raise ConfigurationError(f"the server evicts keys when full ({policy}): set maxmemory-policy noeviction")


def why_no_writes(facts: dict[str, str]) -> str:
    """Return why the server refuses writes at present, as far as INFO reports it; empty if it accepts them."""
    if facts.get("role") == "slave" and facts.get("slave_read_only") != "0":
        return "it is a read-only replica"
    return LOADING if facts.get("loading") == "1" else ""
