"""The way to a store: where it answers, and in the modules its REST client, transport, and what its replies mean.

This module loads no HTTP client: the gateway imports it too.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import SecretStr

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
