"""Encode the server's replies: as JSON, as JSON with base64, or as RESP2. No I/O.

Base64 and RESP2 need unparsed replies: base64 distinguishes the status ``OK`` from a stored one, RESP2 is passed on.
"""

import binascii
import json
from typing import Any, ClassVar

from overload_demo.store.gateway.commands import (
    MAX_COMMAND_BYTES,
    RedisCommand,
    RefusedError,
    not_available,
    too_large,
)
from overload_demo.store.gateway.resp import ReplyError, elements_of, parsed


class ReplyFormat:
    """JSON, and what the other formats change; ``is_raw`` formats encode unparsed replies."""

    content_type: ClassVar[bytes] = b"application/json"
    is_raw: ClassVar[bool] = False

    def item(self, reply: Any, command: RedisCommand) -> bytes:
        """Encode the reply to a command, or its error, in Upstash's words where these differ."""
        if (error := self.error_in(reply)) is not None:
            return self.error(not_available(command.name) if error.startswith("ERR unknown command") else error)
        try:
            encoded = self.encode(self.bulk(command.answer) if command.answer else reply)
        except RecursionError:
            return self.error("ERR the reply is nested too deeply for JSON")
        if len(encoded) > MAX_COMMAND_BYTES:
            return self.error(too_large(len(encoded), MAX_COMMAND_BYTES))
        return self.wrap(encoded)

    def error(self, text: str) -> bytes:
        """Encode an error."""
        return b'{"error":%b}' % _to_json(text).encode()

    def together(self, items: list[bytes]) -> bytes:
        """Join the items of several commands."""
        return b"[%b]" % b",".join(items)

    def wrap(self, encoded: bytes) -> bytes:
        """Make an item of an encoded reply."""
        return b'{"result":%b}' % encoded

    def encode(self, reply: Any) -> bytes:
        """Encode a reply that is no error."""
        return _to_json(reply).encode()

    def bulk(self, text: str) -> Any:
        """Return a text in the form of a reply."""
        return text

    def error_in(self, reply: Any) -> str | None:
        """Return the text of an error reply; None if the reply is no error."""
        return str(reply) if isinstance(reply, ReplyError) else None

    def elements(self, reply: Any) -> list[Any]:
        """Return the replies in the reply to a transaction."""
        elements: list[Any] = reply
        return elements


class _RawFormat(ReplyFormat):
    is_raw = True

    def bulk(self, text: str) -> Any:
        return b"$%d\r\n%b\r\n" % (len(text), text.encode())

    def error_in(self, reply: Any) -> str | None:
        return reply[1:-2].decode(errors="replace") if reply.startswith(b"-") else None

    def elements(self, reply: Any) -> list[Any]:
        return elements_of(reply)


class _Base64(_RawFormat):
    """Every string in base64, at any depth, so that any bytes fit into JSON; only the status ``OK`` stays as it is."""

    def encode(self, reply: Any) -> bytes:
        if reply == b"+OK\r\n":
            return b'"OK"'
        if isinstance(value := parsed(reply), ReplyError):  # the bytes are no error reply, so parsing has failed
            raise RecursionError
        return _to_json(value).encode()


class _Resp2(_RawFormat):
    """The server's own bytes."""

    content_type = b"application/octet-stream"

    def error(self, text: str) -> bytes:
        return b"-%b\r\n" % " ".join(text.split()).encode()

    def together(self, items: list[bytes]) -> bytes:
        return b"".join(items)

    def wrap(self, encoded: bytes) -> bytes:
        return encoded

    def encode(self, reply: Any) -> bytes:
        return bytes(reply)


JSON, BASE64, RESP2 = ReplyFormat(), _Base64(), _Resp2()


def format_for(headers: dict[bytes, bytes], path: bytes) -> ReplyFormat:
    """The requested format; a transaction is never answered in RESP2. Raises :class:`RefusedError`."""
    wants_base64 = headers.get(b"upstash-encoding", b"").lower() == b"base64"
    name = headers.get(b"upstash-response-format", b"json").lower()
    if name not in {b"", b"json", b"resp2"}:
        raise RefusedError("ERR Upstash-Response-Format must be json or resp2")
    if name != b"resp2":
        return BASE64 if wants_base64 else JSON
    if wants_base64:
        raise RefusedError("ERR Upstash-Encoding base64 is not permitted with Upstash-Response-Format resp2")
    return JSON if path == b"multi-exec" else RESP2


def _encode_other(value: object) -> str:
    """Encode bytes as base64, and an error inside a script's array as its text."""
    return binascii.b2a_base64(value, newline=False).decode() if isinstance(value, bytes) else str(value)


_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_encode_other).encode
