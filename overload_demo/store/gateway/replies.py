"""Encode the server's replies: as JSON, as JSON with base64, or as RESP2. No I/O.

Base64 and RESP2 need unparsed replies: base64 distinguishes the status ``OK`` from a stored one, RESP2 is passed on.
"""

import binascii
import json
from dataclasses import dataclass
from typing import Any

from overload_demo.store.gateway.commands import (
    MAX_COMMAND_BYTES,
    NOT_AVAILABLE,
    RedisCommand,
    RefusedError,
    too_large,
)
from overload_demo.store.gateway.resp import ReplyError, elements_of, parsed


@dataclass(frozen=True)
class ReplyFormat:
    """A format of responses; one that ``is_raw`` encodes unparsed replies."""

    content_type: bytes
    is_json: bool
    is_raw: bool

    def item(self, reply: Any, command: RedisCommand) -> bytes:
        """Encode the reply to a command, or its error, in Upstash's words where these differ."""
        if (error := self.error_in(reply)) is not None:
            is_unknown = error.startswith("ERR unknown command")
            return self.error(NOT_AVAILABLE.format(command.name) if is_unknown else error)
        if command.answer:
            reply = b"$%d\r\n%b\r\n" % (len(command.answer), command.answer.encode()) if self.is_raw else command.answer
        try:
            encoded = self._encode(reply)
        except RecursionError:
            return self.error("ERR the reply is nested too deeply for JSON")
        if len(encoded) > MAX_COMMAND_BYTES:
            return self.error(too_large(len(encoded), MAX_COMMAND_BYTES))
        return b'{"result":%b}' % encoded if self.is_json else encoded

    def error(self, text: str) -> bytes:
        """Encode an error."""
        if self.is_json:
            return b'{"error":%b}' % _to_json(text).encode()
        return b"-%b\r\n" % " ".join(text.split()).encode()

    def together(self, items: list[bytes]) -> bytes:
        """Join the items of several commands."""
        return b"[%b]" % b",".join(items) if self.is_json else b"".join(items)

    def error_in(self, reply: Any) -> str | None:
        """Return the text of an error reply; None if the reply is no error."""
        if self.is_raw:
            return reply[1:-2].decode(errors="replace") if reply.startswith(b"-") else None
        return str(reply) if isinstance(reply, ReplyError) else None

    def elements(self, reply: Any) -> list[Any]:
        """Return the replies in the reply to a transaction."""
        return elements_of(reply) if self.is_raw else list(reply)

    def _encode(self, reply: Any) -> bytes:
        """Encode a reply that is no error; raises RecursionError if it is nested too deeply."""
        if not self.is_json:
            return bytes(reply)
        if self.is_raw:  # base64, at any depth, so that any bytes fit into JSON; only the status OK stays as it is
            if reply == b"+OK\r\n":
                return b'"OK"'
            if isinstance(reply := parsed(reply), ReplyError):  # it is no error reply, so parsing has failed
                raise RecursionError
        return _to_json(reply).encode()


def _encode_other(value: object) -> str:
    """Encode bytes as base64, and an error inside a script's array as its text."""
    return binascii.b2a_base64(value, newline=False).decode() if isinstance(value, bytes) else str(value)


_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_encode_other).encode
JSON = ReplyFormat(b"application/json", is_json=True, is_raw=False)
BASE64 = ReplyFormat(b"application/json", is_json=True, is_raw=True)
RESP2 = ReplyFormat(b"application/octet-stream", is_json=False, is_raw=True)


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
