"""Read a request of the Upstash REST protocol: its token, and its commands in body, path or query. No I/O."""

import hmac
import json
import re
import secrets
from itertools import islice
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from overload_demo.errors import ConfigurationError
from overload_demo.store.gateway.commands import RefusedError

MAX_BODY_BYTES = 64 * 1024 * 1024  # all commands of one request together
MAX_READER_BODY_BYTES = 1024 * 1024  # with the read-only token
MAX_COMMANDS = 10_000  # in one pipeline or transaction
MAX_VALUES = 1_000_000  # in one body; one takes about 60 bytes in memory, and as few as 2 in the body
UNAUTHORIZED = (
    "WRONGPASS invalid or missing auth token. "
    "See https://docs.upstash.com/redis/troubleshooting/http_unauthorized for details."
)


class Tokens:
    """``standard`` permits every command, ``read_only`` those that only read data; an empty one is drawn at random.

    Raises :class:`ConfigurationError` when both are the same.
    """

    def __init__(self, standard: str = "", read_only: str = "") -> None:
        self.standard = standard or secrets.token_urlsafe(32)
        self.read_only = read_only or secrets.token_urlsafe(32)
        if self.standard == self.read_only:
            raise ConfigurationError("the read-only token is the same as the token: they must differ")
        self._standard, self._read_only = self.standard.encode(), self.read_only.encode()
        self._usual = b"Bearer " + self._standard

    def is_read_only(self, headers: dict[bytes, bytes], query: bytes) -> bool:
        """Whether the request carries the read-only token; raises :class:`RefusedError` (401) if it carries neither.

        The query's ``_token`` takes precedence over the header, which holds the token with or without ``Bearer``. All
        comparisons take constant time.
        """
        given = headers.get(b"authorization", b"")
        if not query and hmac.compare_digest(given, self._usual):
            return False
        parts = (part.removeprefix(b"_token=") for part in query.split(b"&") if part.startswith(b"_token="))
        token = unquote_to_bytes(next(parts, b"").replace(b"+", b" "))
        if not token:
            scheme, _, rest = given.strip().partition(b" ")
            token = rest.strip() if scheme.lower() == b"bearer" else given.strip()
        if hmac.compare_digest(token, self._standard):
            return False
        if hmac.compare_digest(token, self._read_only):
            return True
        raise RefusedError(UNAUTHORIZED, status=401)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# A number keeps its text: 1.50 stays "1.50" and 9007199254740993 keeps its last digit.
_decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant).decode
# A string (closed or not, so that none is read twice), the start of an array or object, or another value.
_VALUE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{]|[^\s,:"\[\]{}]++', re.DOTALL)


def request_arguments(path: bytes, query: bytes, body: bytes) -> list[Any]:
    """The arguments of a request with one command; raises :class:`RefusedError`."""
    if not path:
        return _decode_array(body)
    return [*path_arguments(path), *([_text_of(body)] if body else []), *query_arguments(query)]


def _decode_array(body: bytes) -> list[Any]:
    """The JSON array in a request body, its numbers as text; raises :class:`RefusedError`."""
    if not body.strip():
        raise RefusedError("EOF")
    # Counted before any value is created; first by separators, which includes those in strings.
    may_be_many = len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) >= MAX_VALUES
    if may_be_many and next(islice(_VALUE.finditer(body), MAX_VALUES, None), None) is not None:
        raise RefusedError(f"ERR too many values in one request. Limit: {MAX_VALUES}", status=413)
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
    commands = _decode_array(body)
    if len(commands) > MAX_COMMANDS:
        raise RefusedError(f"ERR too many commands in one request. Limit: {MAX_COMMANDS}", status=413)
    if not all(isinstance(command, list) for command in commands):
        raise RefusedError("expected JSON array")
    return commands


def path_arguments(path: bytes) -> list[Any]:
    """The command in a path, ``/set/a%2Fb/value``: split first, then percent-decoded.

    Slashes at its ends belong to the URL of the store, so an empty argument can only stand in the middle. An argument
    is a ``str``, or ``bytes`` when it is not UTF-8; the name of the command is always a ``str``.
    """
    name, *arguments = path.strip(b"/").split(b"/")
    return [unquote_to_bytes(name).decode(errors="replace"), *(_text_of(unquote_to_bytes(one)) for one in arguments)]


def query_arguments(query: bytes) -> list[Any]:
    """The arguments in a query, ``EX=100&NX``, in their order and without the token."""
    parts = (part.partition(b"=") for part in query.split(b"&") if part)
    words = ((name, value) if mark else (name,) for name, mark, value in parts if name != b"_token")
    return [_text_of(unquote_to_bytes(word.replace(b"+", b" "))) for pair in words for word in pair]


def _text_of(argument: bytes) -> str | bytes:
    """An argument as text, or its bytes if they are not UTF-8."""
    try:
        return argument.decode()
    except UnicodeDecodeError:
        return argument
