"""The way to a store: where it answers and what it is sent; its client, transport and replies are in the modules.

This module loads no HTTP client: the gateway imports it too.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from pydantic import SecretStr

Argument = str | int | float
Command = Sequence[Argument]
Durability = Literal["always", "everysec", "none", "unknown"]
DURABILITY_TEXT = r"^(always|everysec|none|unknown)(\+[1-5])?$"  # of Address.durability_with


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
    """So many replicas must have what a script has written or found.

    WAIT covers what its own connection has written; a repeated script may write nothing, so ``touch`` always writes.
    """

    replicas: int
    touch: ScriptCall
