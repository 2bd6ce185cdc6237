"""What the client sends: commands, Lua scripts and their calls, and the confirmation by replicas that a call needs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

Argument = str | int | float
Command = Sequence[Argument]


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
