"""What a request of the Upstash REST contract asks for: its body or its path as argument lists. No I/O."""

import json
import re
from itertools import islice
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from overload_demo.store.gateway.commands import RefusedError

MAX_BODY_BYTES = 64 * 1024 * 1024  # all commands of one request together
MAX_READER_BODY_BYTES = 1024 * 1024  # with the read-only token
MAX_COMMANDS = 10_000  # in one pipeline or transaction
MAX_VALUES = 1_000_000  # in one body; one takes about 60 bytes in memory, and as few as 2 in the body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# A number keeps its text: 1.50 stays "1.50" and 9007199254740993 keeps its last digit.
_decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant).decode


# A string (closed or not, so that none is read twice), the start of an array or object, or another value.
_VALUE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{]|[^\s,:"\[\]{}]++', re.DOTALL)


def _refuse_too_many_values(body: bytes) -> None:
    """Raise :class:`RefusedError` for more than ``MAX_VALUES``, before any of them is made."""
    if sum(map(body.count, (b",", b"[", b"{"))) < MAX_VALUES:  # the usual case; those in strings count here too
        return
    if next(islice(_VALUE.finditer(body), MAX_VALUES, None), None) is not None:
        raise RefusedError(f"ERR too many values in one request. Limit: {MAX_VALUES}", status=413)


def decode_array(body: bytes) -> list[Any]:
    """The JSON array in a request body, its numbers as text; raises :class:`RefusedError`."""
    if not body.strip():
        raise RefusedError("EOF")
    if len(body) > MAX_VALUES:  # a smaller one cannot hold so many
        _refuse_too_many_values(body)
    try:
        array = _decode(body.decode("utf-8", "replace"))
    except RecursionError:
        raise RefusedError("ERR invalid JSON: nested too deeply") from None
    except ValueError as error:
        raise RefusedError(f"ERR invalid JSON: {error}") from None
    if not isinstance(array, list):
        raise RefusedError("expected JSON array")
    return array


def decode_commands(body: bytes) -> list[list[Any]]:
    """The array of arrays in the body of a pipeline or transaction; raises :class:`RefusedError`."""
    commands = decode_array(body)
    if len(commands) > MAX_COMMANDS:
        raise RefusedError(f"ERR too many commands in one request. Limit: {MAX_COMMANDS}", status=413)
    if not all(isinstance(command, list) for command in commands):
        raise RefusedError("expected JSON array")
    return commands


def path_arguments(path: bytes) -> list[Any]:
    """The command in a path as it was sent, ``/set/a%2Fb/value``: percent-decoded after it was cut.

    Slashes at its ends belong to the URL of the store, so an empty argument can only stand in the middle. An argument
    is a ``str``, or ``bytes`` when it is not UTF-8; the name of the command is always a ``str``.
    """
    name, *arguments = path.strip(b"/").split(b"/")
    return [unquote_to_bytes(name).decode(errors="replace"), *(text_of(unquote_to_bytes(one)) for one in arguments)]


def query_arguments(query: bytes) -> list[Any]:
    """The arguments in a query, ``EX=100&NX``, in their order; the token is none of them."""
    parts = (part.partition(b"=") for part in query.split(b"&") if part)
    words = ((name, value) if mark else (name,) for name, mark, value in parts if name != b"_token")
    return [text_of(unquote_to_bytes(word.replace(b"+", b" "))) for pair in words for word in pair]


def query_token(query: bytes) -> bytes:
    """The token in a query, percent-decoded; empty if there is none."""
    for part in query.split(b"&"):
        if part.startswith(b"_token="):
            return unquote_to_bytes(part.removeprefix(b"_token=").replace(b"+", b" "))
    return b""


def text_of(argument: bytes) -> str | bytes:
    """An argument as text; what is not UTF-8 stays as it is."""
    try:
        return argument.decode()
    except UnicodeDecodeError:
        return argument
