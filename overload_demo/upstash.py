"""The REST transport to Upstash Redis, and to the embedded store that speaks the same protocol. The only httpx."""

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
