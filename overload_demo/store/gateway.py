"""The Upstash REST contract as an ASGI app in front of one Redis connection.

It stands on the hot path of everything, so a request costs one future, one write and no task of its own. It never
repeats a command: only the client knows whether a repeat does harm.
"""

import base64
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

from overload_demo.errors import Outcome, StoreUnavailableError
from overload_demo.store.commands import CommandRefusedError
from overload_demo.store.resp import ReplyError
from overload_demo.store.rest import (
    MAX_BODY_BYTES,
    BodyError,
    Command,
    decode_array,
    decode_commands,
    error_item,
    prepare,
    reply_error,
    result_item,
    too_large,
)
from overload_demo.store.upstream import Upstream

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Answer = tuple[int, bytes]
Handler = Callable[[bytes, bool], Awaitable[Answer]]

UNAUTHORIZED = (
    "WRONGPASS invalid or missing auth token. "
    "See https://docs.upstash.com/redis/troubleshooting/http_unauthorized for details."
)
MULTI, EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"


class Gateway:
    """The app. ``upstream`` is the link to the server, ``token`` what every request must carry."""

    def __init__(self, upstream: Upstream, token: str) -> None:
        self._upstream = upstream
        self._authorization = f"Bearer {token}".encode()
        # Opaque to clients. It starts at the clock, so that a restarted gateway does not say the same again.
        self._writes = time.time_ns()
        # The path form (GET /set/key/value) would join here: whatever is no fixed path is a command.
        self._posts: dict[str, Handler] = {
            "/": self._command,
            "/pipeline": self._pipeline,
            "/multi-exec": self._transaction,
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        headers = dict(scope["headers"])
        answer = self._refusal(scope["method"], headers) or await self._serve(scope, headers, receive)
        if answer is None:
            return  # the client is gone
        status, body = answer
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(body)),
                    (b"upstash-sync-token", base64.b32hexencode(self._writes.to_bytes(10, "big"))),
                ],
            }
        )
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _refusal(self, method: str, headers: dict[bytes, bytes]) -> Answer | None:
        """The answer to a request that is refused whatever its path."""
        if method not in {"GET", "HEAD", "POST", "PUT"}:
            return 405, b""
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._authorization):
            return 401, error_item(UNAUTHORIZED)
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
            return 413, error_item(too_large(int(declared), MAX_BODY_BYTES))
        return None

    async def _serve(self, scope: Message, headers: dict[bytes, bytes], receive: Receive) -> Answer | None:
        """Find what the path asks for and turn everything that can go wrong into its answer."""
        method, path = scope["method"], scope["path"]
        as_bytes = headers.get(b"upstash-encoding", b"").lower() == b"base64"
        try:
            if method in {"POST", "PUT"} and path in self._posts:
                body = await _read_body(receive)
                return None if body is None else await self._posts[path](body, as_bytes)
            if method in {"GET", "HEAD"} and path == "/ping":
                return await self._run_one(["PING"], as_bytes)
            return 404, error_item("ERR this gateway serves POST /, /pipeline and /multi-exec, and GET /ping")
        except BodyError as error:
            return 400, error_item(str(error))
        except CommandRefusedError as refused:
            return refused.status, error_item(str(refused))
        except StoreUnavailableError as error:
            unknown = error.outcome is Outcome.UNKNOWN
            advice = "the outcome is unknown" if unknown else "nothing was done, try again"
            return 503, error_item(f"ERR {error}: {advice}")

    async def _command(self, body: bytes, as_bytes: bool) -> Answer:
        return await self._run_one(decode_array(body), as_bytes)

    async def _run_one(self, arguments: list[Any], as_bytes: bool) -> Answer:
        command = prepare(arguments)
        (reply,) = await self._ask(command.packed, 1, as_bytes, command.is_write)
        status = 400 if isinstance(reply, ReplyError) else 200
        return status, result_item(reply, command.name)

    async def _pipeline(self, body: bytes, as_bytes: bool) -> Answer:
        """Each command for itself: what is refused here or by the server takes nothing from its neighbours."""
        commands = [_prepared_or_refused(arguments) for arguments in decode_commands(body)]
        sent = [command for command in commands if isinstance(command, Command)]
        replies = iter(await self._ask_all(sent, as_bytes))
        items = (
            result_item(next(replies), command.name) if isinstance(command, Command) else error_item(str(command))
            for command in commands
        )
        return 200, b"[%b]" % b",".join(items)

    async def _transaction(self, body: bytes, as_bytes: bool) -> Answer:
        """All or nothing is sent; a command that fails while running does not stop the others."""
        commands = [prepare(arguments) for arguments in decode_commands(body)]
        if not commands:
            return 200, b"[]"
        packed = b"".join((MULTI, *(command.packed for command in commands), EXEC))
        is_write = any(command.is_write for command in commands)
        _, *queued, results = await self._ask(packed, len(commands) + 2, as_bytes, is_write)
        if isinstance(results, ReplyError):
            # The server says why when it queues a command, and only "discarded" at the end.
            for reply, command in zip(queued, commands, strict=True):
                if isinstance(reply, ReplyError):
                    return 400, error_item(reply_error(reply, command.name))
            return 400, error_item(str(results))
        items = (result_item(reply, command.name) for reply, command in zip(results, commands, strict=True))
        return 200, b"[%b]" % b",".join(items)

    async def _ask_all(self, commands: list[Command], as_bytes: bool) -> list[Any]:
        if not commands:
            return []
        packed = b"".join([command.packed for command in commands])
        return await self._ask(packed, len(commands), as_bytes, any(command.is_write for command in commands))

    async def _ask(self, packed: bytes, expected: int, as_bytes: bool, is_write: bool) -> list[Any]:
        connection = self._upstream.live or await self._upstream.wait_for_connection()
        try:
            return await connection.send(packed, expected, as_bytes=as_bytes)
        finally:
            if is_write:
                self._writes += 1


def _prepared_or_refused(arguments: list[Any]) -> Command | CommandRefusedError:
    try:
        return prepare(arguments)
    except CommandRefusedError as refused:
        return refused


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body, or None when the client left before its end; raises :class:`CommandRefusedError` (413)."""
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        return bytes(message.get("body", b""))
    chunks, size = [], 0
    while message["type"] == "http.request":
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY_BYTES:
            raise CommandRefusedError(too_large(size, MAX_BODY_BYTES), status=413)
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()
    return None
