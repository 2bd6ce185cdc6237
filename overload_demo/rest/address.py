"""Where a store answers. Apart from the transport, so that the store's own process need not load it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import SecretStr

Durability = Literal["always", "everysec", "none", "unknown"]


@dataclass(frozen=True)
class Address:
    """Where a store answers, its token (masked in reprs), and when an acknowledged write is on disk.

    ``url`` is a bare origin, or ``unix://`` and the path of a socket of this user on which HTTP is spoken.
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
        """What the URLs of requests begin with."""
        return "http://localhost" if self.socket else self.url
