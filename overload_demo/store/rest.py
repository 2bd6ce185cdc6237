"""The JSON side of the Upstash REST contract: request bodies into commands, replies into result texts. No I/O."""

import binascii
import json
from typing import Any, NamedTuple, NoReturn

from overload_demo.store.commands import CommandRefusedError, admit, not_available
from overload_demo.store.resp import ReplyError, pack

MAX_COMMAND_BYTES = 10 * 1024 * 1024  # one command, and one reply, as on Upstash's plans without a fixed size
MAX_BODY_BYTES = 64 * 1024 * 1024  # all commands of one request together


class Command(NamedTuple):
    """A command ready to be sent."""

    name: str
    packed: bytes
    is_write: bool


class BodyError(Exception):
    """The body is not what its path asks for: a 400 with this text."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# A number keeps its text: 1.50 stays "1.50" and 9007199254740993 keeps its last digit.
_decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant).decode


def decode_array(body: bytes) -> list[Any]:
    """The JSON array in a request body, its numbers as text; raises :class:`BodyError`."""
    if not body.strip():
        raise BodyError("EOF")
    try:
        array = _decode(body.decode("utf-8", "replace"))
    except RecursionError:
        raise BodyError("ERR invalid JSON: nested too deeply") from None
    except ValueError as error:
        raise BodyError(f"ERR invalid JSON: {error}") from None
    if not isinstance(array, list):
        raise BodyError("expected JSON array")
    return array


def decode_commands(body: bytes) -> list[list[Any]]:
    """The array of arrays in the body of a pipeline or transaction; raises :class:`BodyError`."""
    commands = decode_array(body)
    if not all(isinstance(command, list) for command in commands):
        raise BodyError("expected JSON array")
    return commands


def prepare(arguments: list[Any]) -> Command:
    """The command in a decoded JSON array; raises :class:`CommandRefusedError` when it is not to be sent."""
    if not arguments:
        raise CommandRefusedError("ERR empty command")
    texts: list[str] = arguments if set(map(type, arguments)) == {str} else [_as_text(one) for one in arguments]
    texts, is_write = admit(texts)
    packed = pack(texts)
    if len(packed) > MAX_COMMAND_BYTES:
        raise CommandRefusedError(too_large(len(packed), MAX_COMMAND_BYTES), status=413)
    return Command(texts[0], packed, is_write)


def _as_text(argument: Any) -> str:
    if isinstance(argument, str):
        return argument
    if isinstance(argument, bool):
        return "true" if argument else "false"
    if argument is None:
        raise CommandRefusedError("ERR null args are not supported")
    bracket = "[" if isinstance(argument, list) else "{"
    raise CommandRefusedError(f'ERR unsupported arg type: "{bracket}": json.Delim')


def too_large(actual: int, limit: int) -> str:
    """What Upstash says when a command, or its reply, is too large; both numbers are bytes."""
    return f"ERR max request size exceeded. Limit: {limit}, Actual: {actual}"


def _encode_other(value: object) -> str:
    """What JSON has no form for: bytes (asked for as base64), and an error inside a script's array."""
    if isinstance(value, bytes):
        return binascii.b2a_base64(value, newline=False).decode()
    return str(value)


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_encode_other).encode


def error_item(text: str) -> bytes:
    """``{"error": text}``."""
    return b'{"error":%b}' % _encode(text).encode()


def reply_error(error: Exception, name: str) -> str:
    """The text of a server's error, in Upstash's words where these differ."""
    text = str(error)
    return not_available(name) if text.startswith("ERR unknown command") else text


def result_item(reply: Any, name: str) -> bytes:
    """``{"result": ...}`` or ``{"error": ...}`` for a reply to command ``name``.

    Strings given as ``bytes`` become base64, except an ``OK`` that is the whole reply.
    """
    if isinstance(reply, ReplyError):
        return error_item(reply_error(reply, name))
    encoded = _encode("OK" if reply == b"OK" else reply).encode()
    if len(encoded) > MAX_COMMAND_BYTES:
        return error_item(too_large(len(encoded), MAX_COMMAND_BYTES))
    return b'{"result":%b}' % encoded
