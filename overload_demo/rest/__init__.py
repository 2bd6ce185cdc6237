"""The way to a store: where it answers, what it is sent, and what its errors and INFO mean; the modules do the sending.

This module loads no HTTP client: the gateway imports it too.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import SecretStr

from overload_demo.errors import (
    ConfigurationError,
    Outcome,
    StoreAuthError,
    StoreError,
    StoreFullError,
    StoreQuotaError,
    StoreRefusedError,
    StoreUnavailableError,
)

Argument = str | int | float
Command = Sequence[Argument]
Durability = Literal["always", "everysec", "none", "unknown"]
DURABILITY_TEXT = r"^(always|everysec|none|unknown)(\+[1-5])?$"  # of Address.durability_with
OLDEST = (6, 2)  # version of a server
LOADING = "it is loading its data"
# Errors that begin so mean: nothing was done, and the same request may succeed later.
_NOT_NOW = ("LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF")
_NOT_HERE = ("MOVED ", "ASK ")
_NO_ACCESS = ("WRONGPASS", "NOAUTH")


@dataclass(frozen=True)
class Address:
    """Where a store answers, its token (masked in reprs), and when an acknowledged write is on disk.

    ``url`` is an origin without a path, or ``unix://`` and the path of an HTTP socket that belongs to this user.
    ``tag`` begins every key: the hash tag of a shard in a cluster, else empty. ``others`` are the addresses of the
    further shards, if this one is shard 0 of several.
    """

    url: str
    token: SecretStr
    durability: Durability = "unknown"
    tag: str = ""
    others: tuple["Address", ...] = ()

    def durability_with(self, replicas: int) -> str:
        """The durability as text: ``always+1`` is on the disk of the primary and in the memory of one replica."""
        return f"{self.durability}+{replicas}" if replicas else self.durability

    @property
    def shards(self) -> tuple["Address", ...]:
        """The addresses of all shards, in order."""
        return self, *self.others

    @cached_property
    def socket(self) -> str:
        """The path of the socket; empty for an origin."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else ""

    @cached_property
    def origin(self) -> str:
        """The start of every request URL."""
        return "http://localhost" if self.socket else self.url


@dataclass(frozen=True)
class Script:
    """A Lua script."""

    name: str
    text: str

    @cached_property
    def sha(self) -> str:
        """SHA-1 of the text, by which EVALSHA names the script."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class ScriptCall:
    """One call of a script with its KEYS and ARGV."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]

    def by_sha(self) -> list[Argument]:
        """The call as EVALSHA, which is short."""
        return ["EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args]

    def by_text(self) -> list[Argument]:
        """The call as EVAL, which also loads the script into the server's cache."""
        return ["EVAL", self.script.text, len(self.keys), *self.keys, *self.args]


class Confirmation(NamedTuple):
    """``replicas`` replicas must have what a script has written or found.

    WAIT covers what its own connection has written; a repeated script may write nothing, so ``touch`` always writes.
    """

    replicas: int
    touch: ScriptCall


def error_in(status: int, body: Any, *, scripted: bool = False) -> StoreError:
    """Return the typed error for a reply without a result.

    ``scripted``: a script that fails in the middle may have written before, so the outcome is unknown.
    """
    text = body.get("error") if isinstance(body, dict) else None
    if status == 401:
        return StoreAuthError("the store refused the token (401): check UPSTASH_REDIS_REST_TOKEN")
    if status == 413:  # the request was too large, so nothing ran; with status 200 the same text is about the reply
        return StoreRefusedError(f"the store refused the request as too large: {str(text)[:200]}")
    if not isinstance(text, str):
        return StoreUnavailableError(f"the store answered {status} in an unexpected form", Outcome.UNKNOWN)
    if status >= 500 or status == 429:
        # the gateway's text when it had no server to send the command to
        outcome = Outcome.NOT_ENQUEUED if status == 503 and "nothing was done" in text else Outcome.UNKNOWN
        return StoreUnavailableError(f"the store answered {status}: {text[:200]}", outcome)
    if text.startswith("NOPERM"):
        return StoreAuthError("the store's token does not allow this (NOPERM): is it the read-only one?")
    if text.startswith(_NO_ACCESS):
        return StoreAuthError(f"the store refused the token: {text.split(' ', 1)[0]}")
    if "OOM command" in text or "capacity quota exceeded" in text:
        return StoreFullError("the store is full: it refuses writes until jobs are drained")
    if "max requests limit" in text:  # without its numbers, which change with every attempt: one log line is enough
        return StoreQuotaError("the monthly command quota is used up (max requests limit exceeded)")
    if text.startswith(_NOT_NOW + _NOT_HERE):
        return StoreUnavailableError(f"the store is not ready: {text[:200]}")
    definite = not scripted or text.startswith("NOSCRIPT")
    outcome = Outcome.NOT_ENQUEUED if definite else Outcome.UNKNOWN
    return StoreRefusedError(f"the store refused the command: {text[:200]}", outcome)


def info_facts(info: str) -> dict[str, str]:
    """The ``name:value`` lines of an INFO reply."""
    return {name: value for name, mark, value in (line.partition(":") for line in info.splitlines()) if mark}


def refuse_unsafe(facts: dict[str, str], *, in_cluster: bool = False, server: str = "the server") -> None:
    """Raise :class:`ConfigurationError` if INFO reports eviction, or cluster mode unless ``in_cluster``."""
    if facts.get("cluster_enabled") == "1" and not in_cluster:
        raise ConfigurationError(f"{server} is a cluster: use OVERLOAD_REDIS_URL=redis+cluster://host:port?shards=12")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory") != "0":
        raise ConfigurationError(f"{server} evicts keys when full ({policy}): set maxmemory-policy noeviction")


def refuse_old(facts: dict[str, str], server: str = "the server") -> None:
    """Raise :class:`ConfigurationError` if INFO reports a version older than ``OLDEST``."""
    version = re.match(r"(\d+)\.(\d+)", facts.get("redis_version", ""))
    if version and (int(version[1]), int(version[2])) < OLDEST:
        raise ConfigurationError(f"{server} is version {version[0]}, but at least 6.2 is needed")


def why_no_writes(facts: dict[str, str]) -> str:
    """Return why the server refuses writes at present, as far as INFO reports it; empty if it accepts them."""
    if facts.get("role") == "slave" and facts.get("slave_read_only") != "0":
        return "it is a read-only replica"
    return LOADING if facts.get("loading") == "1" else ""
