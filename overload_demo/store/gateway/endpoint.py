"""The Upstash REST contract as an ASGI app in front of one Redis connection.

It stands on the hot path of everything, so a request costs one future, one write and no task of its own. It never
repeats a command: only the client knows whether a repeat does harm.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from overload_demo.errors import Outcome, StoreUnavailableError
from overload_demo.store.data_dir import Tokens
from overload_demo.store.gateway import events
from overload_demo.store.gateway.commands import Command, RefusedError, no_permission, prepare, too_large
from overload_demo.store.gateway.key_locking import Scripts
from overload_demo.store.gateway.replies import JSON, Form, form_for
from overload_demo.store.gateway.request_body import (
    MAX_BODY_BYTES,
    MAX_READER_BODY_BYTES,
    decode_array,
    decode_commands,
    path_arguments,
    query_arguments,
    text_of,
)
from overload_demo.store.gateway.resp import TOO_LARGE, Room
from overload_demo.store.gateway.upstream import Lane, Upstream
from overload_demo.store.tokens import Guard

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Answer = tuple[int, bytes]
Handler = Callable[[bytes, "Way"], Awaitable[Answer]]

METHODS, METHODS_WITH_BODY = frozenset({"GET", "HEAD", "POST", "PUT"}), frozenset({"POST", "PUT"})
MULTI, EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"
FIRST_BATCH, BATCH_GROWTH = 16, 4  # of a pipeline: at worst so many replies of 10 MiB come before it is stopped


class Way(NamedTuple):
    """How a request's commands go to the server, and their replies back."""

    prepare: Callable[[list[Any]], Command]
    form: Form
    lane: Lane


class Gateway:
    """The app. ``upstream`` is the link to the server, ``tokens`` are what a request must carry one of."""

    def __init__(self, upstream: Upstream, tokens: Tokens) -> None:
        self._upstream, self._guard, self._events = upstream, Guard(tokens), events.Events(upstream)
        # Opaque to clients. It starts at the clock, so that a restarted gateway does not say the same again.
        self._writes = time.time_ns()
        scripts = Scripts()
        self._prepare = {
            read_only: partial(prepare, scripts=scripts, read_only=read_only) for read_only in (False, True)
        }
        self._bodies: dict[bytes, Handler] = {
            b"": self._command,
            b"pipeline": self._pipeline,
            b"multi-exec": self._transaction,
        }

    def end_events(self) -> None:
        """End the answers that would never end by themselves."""
        self._events.end()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        headers, method, path, form = dict(scope["headers"]), scope["method"], scope["raw_path"].strip(b"/"), JSON
        if method not in METHODS:
            await _respond(send, 200 if method == "OPTIONS" else 405, b"", [*_cors(headers), *_PREFLIGHT])
            return
        try:
            read_only = self._guard.is_read_only(headers, scope["query_string"])
            form = form_for(headers, path)
            if method != "HEAD" and (arguments := events.asked_for(headers, path)):
                await self._serve_events(arguments, read_only, headers, receive, send)
                return
            limit = MAX_READER_BODY_BYTES if read_only else MAX_BODY_BYTES
            body = await _read_body(headers, receive, limit) if method in METHODS_WITH_BODY else b""
            if body is None:
                return  # the client is gone
            way = Way(self._prepare[read_only], form, Lane(form.is_raw, read_only))
            status, content = await self._run(path, scope["query_string"], body, way)
        except RefusedError as refused:
            status, content = refused.status, form.error(str(refused))
        except StoreUnavailableError as error:
            advice = "the outcome is unknown" if error.outcome is Outcome.UNKNOWN else "nothing was done, try again"
            status, content = 503, form.error(f"ERR {error}: {advice}")
        about = [(b"content-type", form.content_type), (b"upstash-sync-token", b"%x" % self._writes), *_cors(headers)]
        await _respond(send, status, content, about)

    async def _run(self, path: bytes, query: bytes, body: bytes, way: Way) -> Answer:
        """Do what path, query and body ask for."""
        handler = self._bodies.get(path)
        if handler is not None:
            return await handler(body, way)
        arguments = [*path_arguments(path), *([text_of(body)] if body else []), *query_arguments(query)]
        return await self._run_one(arguments, way)

    async def _serve_events(
        self, arguments: list[Any], read_only: bool, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        if read_only:
            raise RefusedError(no_permission(arguments[0]))
        await self._events.serve(arguments, _cors(headers), receive, send)

    async def _command(self, body: bytes, way: Way) -> Answer:
        return await self._run_one(decode_array(body), way)

    async def _run_one(self, arguments: list[Any], way: Way) -> Answer:
        command, form = way.prepare(arguments), way.form
        (reply,) = await self._ask(command.packed, 1, way.lane, command.is_write)
        error = form.error_in(reply)
        status = 200 if error is None or error.startswith(TOO_LARGE) else 400  # too large: it was carried out
        return status, form.item(reply, command)

    async def _pipeline(self, body: bytes, way: Way) -> Answer:
        """Each command for itself: what is refused here or by the server takes nothing from its neighbours.

        Commands are sent in batches, so that others have their turn, until their replies are too large together.
        """
        commands = [_prepared_or_refused(way.prepare, arguments) for arguments in decode_commands(body)]
        sent = [command for command in commands if isinstance(command, Command)]
        replies: list[Any] = []
        room, size = Room(), FIRST_BATCH
        while (batch := sent[len(replies) : len(replies) + size]) and not room.is_exceeded_by():
            packed = b"".join([command.packed for command in batch])
            is_write = any(command.is_write for command in batch)
            replies += await self._ask(packed, len(batch), way.lane, is_write, room)
            size *= BATCH_GROWTH
        items = iter([way.form.item(*pair) for pair in zip(replies, sent, strict=False)])
        not_run = way.form.error(f"{room.refusal()}: not carried out")
        told = [next(items, not_run) if isinstance(one, Command) else way.form.error(str(one)) for one in commands]
        return 200, way.form.together(told)

    async def _transaction(self, body: bytes, way: Way) -> Answer:
        """All or nothing is sent; a command that fails while running does not stop the others."""
        form, commands = way.form, [way.prepare(arguments) for arguments in decode_commands(body)]
        if not commands:
            return 200, form.together([])
        packed = b"".join((MULTI, *(command.packed for command in commands), EXEC))
        is_write = any(command.is_write for command in commands)
        _, *queued, results = await self._ask(packed, len(commands) + 2, way.lane, is_write)
        error = form.error_in(results)
        if error is not None and error.startswith(TOO_LARGE):  # carried out
            return 200, form.together([form.error(error)] * len(commands))
        if error is not None:
            # The server says why when it queues a command, and only "discarded" at the end.
            refused = (pair for pair in zip(queued, commands, strict=True) if form.error_in(pair[0]) is not None)
            return 400, form.item(*next(refused, (results, commands[0])))
        replies = zip(form.elements(results), commands, strict=True)
        return 200, form.together([form.item(reply, command) for reply, command in replies])

    async def _ask(
        self, packed: bytes, expected: int, lane: Lane, is_write: bool, room: Room | None = None
    ) -> list[Any]:
        main = None if lane.is_raw or lane.read_only else self._upstream.live
        connection = main or await self._upstream.lane(lane)
        try:
            return await connection.send(packed, expected, room)
        finally:
            if is_write:
                self._writes += 1


def _prepared_or_refused(prepared: Callable[[list[Any]], Command], arguments: list[Any]) -> Command | RefusedError:
    try:
        return prepared(arguments)
    except RefusedError as refused:
        return refused


_PREFLIGHT = [
    (b"allow", b"HEAD, GET, POST, PUT, OPTIONS"),
    (b"access-control-allow-methods", b"HEAD, GET, POST, PUT"),
    (b"access-control-max-age", b"86400"),
]


def _cors(headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Any page may ask: what it needs is the token, which no browser sends by itself."""
    origin = headers.get(b"origin")
    if origin is None:
        return []
    asked = headers.get(b"access-control-request-headers")
    allowed = [] if asked is None else [(b"access-control-allow-headers", asked)]
    exposed = (b"access-control-expose-headers", b"upstash-sync-token")
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin"), exposed, *allowed]


async def _respond(send: Send, status: int, content: bytes, about: list[tuple[bytes, bytes]]) -> None:
    """Send an answer; the server leaves the body out where a HEAD asked."""
    headers = [(b"content-length", b"%d" % len(content)), *about]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _read_body(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None when the client left before its end; raises :class:`RefusedError` (413)."""
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
