"""The Upstash REST protocol as an ASGI app in front of one Redis connection.

Every request of the project passes here, so one costs one future, one write and no task of its own. The gateway never
repeats a command: only the client knows whether a repeat does harm.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from overload_demo.errors import Outcome, StoreUnavailableError
from overload_demo.store.gateway.commands import NO_PERMISSION, RedisCommand, RefusedError, Scripts, prepare, too_large
from overload_demo.store.gateway.events import Events, Message, Receive, Send, event_command
from overload_demo.store.gateway.replies import JSON, ReplyFormat, format_for
from overload_demo.store.gateway.request_body import (
    MAX_BODY_BYTES,
    MAX_READER_BODY_BYTES,
    Tokens,
    decode_commands,
    request_arguments,
)
from overload_demo.store.gateway.resp import TOO_LARGE, ReplyBudget
from overload_demo.store.gateway.upstream import Lane, Upstream

Answer = tuple[int, bytes]

METHODS, METHODS_WITH_BODY = frozenset({"GET", "HEAD", "POST", "PUT"}), frozenset({"POST", "PUT"})
MULTI, EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"
FIRST_BATCH, BATCH_GROWTH = 16, 4  # of a pipeline: at worst so many replies of 10 MiB arrive before it is stopped


class Mode(NamedTuple):
    """How to prepare a request's commands, which connection takes them, and how to encode the replies."""

    prepare: Callable[[list[Any]], RedisCommand]
    format: ReplyFormat
    lane: Lane


class Gateway:
    """The app; each request must carry one of ``tokens``."""

    def __init__(self, upstream: Upstream, tokens: Tokens) -> None:
        self._upstream, self._tokens, self._events = upstream, tokens, Events(upstream)
        # The sync token, opaque to clients. It starts at the clock, so that a restarted gateway repeats none.
        self._writes = time.time_ns()
        scripts = Scripts()
        self._prepare = {
            read_only: partial(prepare, scripts=scripts, read_only=read_only) for read_only in (False, True)
        }

    def end_events(self) -> None:
        """End the responses that would not end by themselves."""
        self._events.end()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        headers, method, path = dict(scope["headers"]), scope["method"], scope["raw_path"].strip(b"/")
        query, reply_format = scope["query_string"], JSON
        if method not in METHODS:
            await _respond(send, 200 if method == "OPTIONS" else 405, b"", [*_cors(headers), *_PREFLIGHT])
            return
        try:
            read_only = self._tokens.is_read_only(headers, query)
            reply_format = format_for(headers, path)
            if method != "HEAD" and (arguments := event_command(headers, path)):
                if read_only:
                    raise RefusedError(NO_PERMISSION.format(arguments[0].lower()))
                await self._events.serve(arguments, _cors(headers), receive, send)
                return
            limit = MAX_READER_BODY_BYTES if read_only else MAX_BODY_BYTES
            body = await _read_body(headers, receive, limit) if method in METHODS_WITH_BODY else b""
            if body is None:
                return  # the client has disconnected
            mode = Mode(self._prepare[read_only], reply_format, Lane(reply_format.is_raw, read_only))
            if path == b"pipeline":
                status, content = await self._pipeline(decode_commands(body), mode)
            elif path == b"multi-exec":
                status, content = await self._transaction(decode_commands(body), mode)
            else:
                status, content = await self._run(request_arguments(path, query, body), mode)
        except RefusedError as refused:
            status, content = refused.status, reply_format.error(str(refused))
        except StoreUnavailableError as error:
            advice = "the outcome is unknown" if error.outcome is Outcome.UNKNOWN else "nothing was done, try again"
            status, content = 503, reply_format.error(f"ERR {error}: {advice}")
        about = [(b"content-type", reply_format.content_type), (b"upstash-sync-token", b"%x" % self._writes)]
        await _respond(send, status, content, about + _cors(headers))

    async def _run(self, arguments: list[Any], mode: Mode) -> Answer:
        command = mode.prepare(arguments)
        (reply,) = await self._ask(command.packed, 1, mode.lane, command.is_write)
        error = mode.format.error_in(reply)
        status = 200 if error is None or error.startswith(TOO_LARGE) else 400  # too large: the command was run
        return status, mode.format.item(reply, command)

    async def _pipeline(self, requested: list[list[Any]], mode: Mode) -> Answer:
        """Run each command by itself: one that is refused here or by the server does not affect the others.

        Commands are sent in batches, so that other requests have their turn, until the replies exceed their budget.
        """
        commands: list[RedisCommand | RefusedError] = []
        for arguments in requested:
            try:
                commands.append(mode.prepare(arguments))
            except RefusedError as refused:
                commands.append(refused)
        sent = [command for command in commands if isinstance(command, RedisCommand)]
        replies: list[Any] = []
        budget, size = ReplyBudget(), FIRST_BATCH
        while (batch := sent[len(replies) : len(replies) + size]) and not budget.is_exceeded_by():
            packed = b"".join([command.packed for command in batch])
            is_write = any(command.is_write for command in batch)
            replies += await self._ask(packed, len(batch), mode.lane, is_write, budget)
            size *= BATCH_GROWTH
        items = iter([mode.format.item(*pair) for pair in zip(replies, sent, strict=False)])
        not_run = mode.format.error(f"{budget.error()}: not carried out")
        answers = [
            next(items, not_run) if isinstance(command, RedisCommand) else mode.format.error(str(command))
            for command in commands
        ]
        return 200, mode.format.together(answers)

    async def _transaction(self, requested: list[list[Any]], mode: Mode) -> Answer:
        """Send all commands or none; a command that fails while running does not stop the others."""
        encoder, commands = mode.format, [mode.prepare(arguments) for arguments in requested]
        if not commands:
            return 200, encoder.together([])
        packed = b"".join((MULTI, *(command.packed for command in commands), EXEC))
        is_write = any(command.is_write for command in commands)
        _, *queued, results = await self._ask(packed, len(commands) + 2, mode.lane, is_write)
        error = encoder.error_in(results)
        if error is not None and error.startswith(TOO_LARGE):  # the transaction was run
            return 200, encoder.together([encoder.error(error)] * len(commands))
        if error is not None:
            # The server gives the reason when it queues a command, and only "discarded" at the end.
            refused = (pair for pair in zip(queued, commands, strict=True) if encoder.error_in(pair[0]) is not None)
            return 400, encoder.item(*next(refused, (results, commands[0])))
        replies = zip(encoder.elements(results), commands, strict=True)
        return 200, encoder.together([encoder.item(reply, command) for reply, command in replies])

    async def _ask(
        self, packed: bytes, expected: int, lane: Lane, is_write: bool, budget: ReplyBudget | None = None
    ) -> list[Any]:
        main = None if lane.is_raw or lane.read_only else self._upstream.live
        connection = main or await self._upstream.lane(lane)
        try:
            return await connection.send(packed, expected, budget)
        finally:
            if is_write:
                self._writes += 1


_PREFLIGHT = [
    (b"allow", b"HEAD, GET, POST, PUT, OPTIONS"),
    (b"access-control-allow-methods", b"HEAD, GET, POST, PUT"),
    (b"access-control-max-age", b"86400"),
]


def _cors(headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Allow any page: a request needs the token, which no browser sends by itself."""
    origin = headers.get(b"origin")
    if origin is None:
        return []
    asked = headers.get(b"access-control-request-headers")
    allowed = [] if asked is None else [(b"access-control-allow-headers", asked)]
    exposed = (b"access-control-expose-headers", b"upstash-sync-token")
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin"), exposed, *allowed]


async def _respond(send: Send, status: int, content: bytes, about: list[tuple[bytes, bytes]]) -> None:
    """Send a response; the HTTP server omits the body of one to HEAD."""
    headers = [(b"content-length", b"%d" % len(content)), *about]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _read_body(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None when the client disconnected before its end; raises :class:`RefusedError` (413)."""
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise RefusedError(too_large(int(declared), limit), status=413)
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        return bytes(message.get("body", b""))
    chunks, size = [], 0
    while message["type"] == "http.request":
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise RefusedError(too_large(size, limit), status=413)
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()
    return None
