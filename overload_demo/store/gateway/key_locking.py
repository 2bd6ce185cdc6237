"""Run scripts that begin with ``#!lua flags=allow-key-locking``, which only Upstash compiles.

The flag lets Upstash run scripts on disjoint keys side by side. A server with one thread runs one script at a time
anyway, so the flag is removed. A client calls the script by the SHA-1 of its own text; that is mapped to the SHA-1 of
the text that the server received.
"""

import hashlib
from typing import Any

FLAG = "allow-key-locking"
SCRIPTED = frozenset({"EVAL", "EVAL_RO", "EVALSHA", "EVALSHA_RO", "SCRIPT"})
REMEMBERED = 1000  # a forgotten one costs its client a NOSCRIPT, and the text again


class Scripts:
    """Maps the SHA-1 of scripts as their clients know them to that of the scripts on the server."""

    def __init__(self) -> None:
        self._sha_loaded: dict[str, str] = {}

    def adapt(self, name: str, arguments: list[Any]) -> tuple[list[Any], str]:
        """The arguments of one of ``SCRIPTED`` for the server, and the answer that replaces its reply.

        The answer is the SHA-1 of the text as it was sent; empty: the reply stands.
        """
        if name.startswith("EVALSHA"):
            if self._sha_loaded:  # empty on the hot path of clients that use no flag
                arguments = [arguments[0], *map(self._loaded, arguments[1:2]), *arguments[2:]]
            return arguments, ""
        if name != "SCRIPT":
            return [arguments[0], *map(self._without_flag, arguments[1:2]), *arguments[2:]], ""
        if arguments[1:2] and arguments[1].upper() == "EXISTS":
            return [*arguments[:2], *map(self._loaded, arguments[2:])], ""
        adapted = [*arguments[:2], *map(self._without_flag, arguments[2:3]), *arguments[3:]]
        return adapted, _sha(arguments[2]) if adapted != arguments else ""

    def _loaded(self, sha: Any) -> Any:
        return self._sha_loaded.get(sha.lower(), sha)

    def _without_flag(self, text: Any) -> Any:
        """The text without the flag; its lines keep their numbers."""
        if not isinstance(text, str) or not text.startswith("#!lua"):
            return text
        first, newline, rest = text.partition("\n")
        words = [_cut(word) for word in first.split()]
        if words == first.split():
            return text
        first = " ".join(filter(None, words))
        cut = ("" if first == "#!lua" else first) + newline + rest
        while len(self._sha_loaded) >= REMEMBERED:
            del self._sha_loaded[next(iter(self._sha_loaded))]
        self._sha_loaded[_sha(text)] = _sha(cut)
        return cut


def _cut(word: str) -> str:
    name, _, flags = word.partition("=")
    if name != "flags" or FLAG not in (kept := flags.split(",")):
        return word
    kept.remove(FLAG)
    return f"flags={','.join(kept)}" if kept else ""


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(errors="replace"), usedforsecurity=False).hexdigest()
