"""Where a store answers. Apart from the transport, so that the store's own process need not load it."""

from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

Durability = Literal["always", "everysec", "none", "unknown"]


@dataclass(frozen=True)
class Address:
    """Where a store answers: bare origin, token (masked in reprs), and when an acknowledged write is on disk."""

    url: str
    token: SecretStr
    durability: Durability = "unknown"
