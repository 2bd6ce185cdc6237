"""The Upstash REST protocol in front of one Redis connection: uvicorn's HTTP protocol with bounds, and the ASGI app.

Every request of the project passes here, so one costs one future, one write and no task of its own. The gateway never
repeats a command: whether a repeat is harmless depends on the client.
"""

import contextlib
import hmac
import secrets
import time
from collections.abc import Awaitable
from typing import Any
from urllib.parse import unquote_to_bytes

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from overload_demo.errors import ConfigurationError, Outcome, StoreUnavailableError
from overload_demo.http_server import OneWriteProtocol
from overload_demo.store.gateway.commands import (
    LONGEST_WAIT_MS,
    SHARED_WAIT_MS,
    RedisCommand,
    RefusedError,
    Scripts,
    decode_commands,
    event_command,
    prepare,
    request_arguments,
    too_large,
)
from overload_demo.store.gateway.replies import JSON, Events, Headers, Message, Receive, ReplyFormat, Send, format_for
from overload_demo.store.gateway.resp import TOO_LARGE, RedisConnection, ReplyBudget, elements_of, error_in, pack
from overload_demo.store.gateway.upstream import Upstream

MAX_HEAD_BYTES = 65_536  # URL and headers together; also the bytes between two parts of a body
WRITE_TIMEOUT_S = 10.0  # in which the client reads no byte of its response
MAX_BODY_BYTES = 64 * 1024 * 1024  # all commands of one request together
MAX_READER_BODY_BYTES = 1024 * 1024  # with the read-only token
FIRST_BATCH, BATCH_GROWTH = 16, 4  # of a pipeline: at worst so many replies of 10 MiB arrive before it is stopped
METHODS, METHODS_WITH_BODY = frozenset({"GET", "HEAD", "POST", "PUT"}), frozenset({"POST", "PUT"})
MULTI, EXEC = (RedisCommand(name, pack([name]), is_write=False) for name in ("MULTI", "EXEC"))
UNAUTHORIZED = (
    "WRONGPASS invalid or missing auth token. "
    "See https://docs.upstash.com/redis/troubleshooting/http_unauthorized for details."
)
PREFLIGHT = [
    (b"allow", b"HEAD, GET, POST, PUT, OPTIONS"),
    (b"access-control-allow-methods", b"HEAD, GET, POST, PUT"),
    (b"access-control-max-age", b"86400"),
]


class Tokens:
    """``standard`` permits every command, ``read_only`` those that only read data; an empty one is drawn at random."""

    def __init__(self, standard: str = "", read_only: str = "") -> None:
        self.standard = standard or secrets.token_urlsafe(32)
        self.read_only = read_only or secrets.token_urlsafe(32)
        if self.standard == self.read_only:
            raise ConfigurationError("the read-only token is the same as the token: they must differ")
        self._usual = b"Bearer " + self.standard.encode()

    def is_read_only(self, headers: dict[bytes, bytes], query: bytes) -> bool:
        """Whether the request carries the read-only token; raises :class:`RefusedError` (401) if it carries neither.

        Comparisons take constant time.
        """
        if not query and hmac.compare_digest(headers.get(b"authorization", b""), self._usual):
            return False
        token = _token_in(headers, query)
        if hmac.compare_digest(token, self.standard.encode()):
            return False
        if hmac.compare_digest(token, self.read_only.encode()):
            return True
        raise RefusedError(UNAUTHORIZED, status=401)

    def of_shard(self, shard: int) -> "Tokens":
        """The tokens of one shard of a cluster."""
        return Tokens(f"{shard}.{self.standard}", f"{shard}.{self.read_only}")


def _token_in(headers: dict[bytes, bytes], query: bytes) -> bytes:
    """The token of a request. The query's ``_token`` takes precedence over the header, whose ``Bearer`` is optional."""
    parts = (part.removeprefix(b"_token=") for part in query.split(b"&") if part.startswith(b"_token="))
    if token := unquote_to_bytes(next(parts, b"").replace(b"+", b" ")):
        return token
    given = headers.get(b"authorization", b"").strip()
    scheme, _, rest = given.partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else given


class Gateway:
    """The app; each request must carry one of ``tokens``."""

    def __init__(self, upstream: Upstream, tokens: Tokens) -> None:
        self._upstream, self._tokens, self.events = upstream, tokens, Events(upstream)
        # The sync token, opaque to clients. It starts at the clock, so that a restarted gateway repeats none.
        self._writes = time.time_ns()
        self._scripts = Scripts()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        headers, method, path = dict(scope["headers"]), scope["method"], scope["raw_path"].strip(b"/")
        query, reply_format = scope["query_string"], JSON
        if method not in METHODS:
            await _respond(send, 200 if method == "OPTIONS" else 405, b"", [*_cors(headers), *PREFLIGHT])
            return
        try:
            read_only = self._tokens.is_read_only(headers, query)
            reply_format = format_for(headers, path)
            if method != "HEAD" and (arguments := event_command(headers, path, read_only=read_only)):
                await self.events.serve(arguments, _cors(headers), receive, send)
                return
            limit = MAX_READER_BODY_BYTES if read_only else MAX_BODY_BYTES
            body = await _read_body(headers, receive, limit) if method in METHODS_WITH_BODY else b""
            if body is None:
                return  # the client has disconnected
            if path == b"pipeline":
                status, content = await self._pipeline(decode_commands(body), reply_format, read_only)
            elif path == b"multi-exec":
                status, content = await self._transaction(decode_commands(body), reply_format, read_only)
            else:
                status, content = await self._run(request_arguments(path, query, body), reply_format, read_only)
        except RefusedError as refused:
            status, content = refused.status, reply_format.error(str(refused))
        except StoreUnavailableError as error:
            advice = "the outcome is unknown" if error.outcome is Outcome.UNKNOWN else "nothing was done, try again"
            status, content = 503, reply_format.error(f"ERR {error}: {advice}")
        about = [(b"content-type", reply_format.content_type), (b"upstash-sync-token", b"%x" % self._writes)]
        await _respond(send, status, content, about + _cors(headers))

    async def _run(self, arguments: list[Any], encoder: ReplyFormat, read_only: bool) -> tuple[int, bytes]:
        command = prepare(arguments, self._scripts, read_only=read_only)
        (reply,) = await self._ask([command], read_only)
        error = error_in(reply)
        status = 200 if error is None or error.startswith(TOO_LARGE) else 400  # too large: the command was run
        return status, encoder.item(reply, command)

    async def _pipeline(self, wanted: list[list[Any]], encoder: ReplyFormat, read_only: bool) -> tuple[int, bytes]:
        """Run each command by itself: one that is refused here or by the server does not affect the others.

        A WAIT at the end confirms the writes before it, so all run on a connection of their own.
        """
        commands: list[RedisCommand | RefusedError] = []
        for at, arguments in enumerate(wanted, 1):
            wait_ms = LONGEST_WAIT_MS if 1 < at == len(wanted) else SHARED_WAIT_MS
            try:
                commands.append(prepare(arguments, self._scripts, read_only=read_only, longest_wait_ms=wait_ms))
            except RefusedError as refused:
                commands.append(refused)
        sent = [command for command in commands if isinstance(command, RedisCommand)]
        replies: list[bytes] = []
        # In batches, so that other requests have their turn, until the replies exceed their budget.
        budget, size = ReplyBudget(), FIRST_BATCH
        waits = len(wanted) > 1 and bool(sent) and sent[-1].name.upper() == "WAIT"
        async with self._upstream.lent.lend() if waits else contextlib.nullcontext() as own:
            while (batch := sent[len(replies) : len(replies) + size]) and not budget.is_exceeded_by():
                try:
                    replies += await self._ask(batch, read_only, budget, own)
                except StoreUnavailableError as error:
                    raise StoreUnavailableError(str(error), Outcome.UNKNOWN if replies else error.outcome) from None
                size *= BATCH_GROWTH
        items = iter([encoder.item(*pair) for pair in zip(replies, sent, strict=False)])
        not_run = encoder.error(f"{budget.error()}: not carried out")
        answers = [
            next(items, not_run) if isinstance(command, RedisCommand) else encoder.error(str(command))
            for command in commands
        ]
        return 200, encoder.together(answers)

    async def _transaction(self, wanted: list[list[Any]], encoder: ReplyFormat, read_only: bool) -> tuple[int, bytes]:
        """Send all commands or none; a command that fails while running does not stop the others."""
        commands = [prepare(arguments, self._scripts, read_only=read_only) for arguments in wanted]
        if not commands:
            return 200, encoder.together([])
        begun, *queued, results = await self._ask([MULTI, *commands, EXEC], read_only)
        if (refusal := error_in(begun)) is not None and any(error_in(reply) is None for reply in queued):
            raise StoreUnavailableError(f"the commands ran without a transaction: {refusal}", Outcome.UNKNOWN)
        error = error_in(results)
        if error is not None and error.startswith(TOO_LARGE):  # the transaction was run
            return 200, encoder.together([encoder.error(error)] * len(commands))
        if error is not None:
            # The server gives the reason when it queues a command, and only "discarded" at the end.
            refused = (pair for pair in zip(queued, commands, strict=True) if error_in(pair[0]) is not None)
            return 400, encoder.item(*next(refused, (results, commands[0])))
        replies = zip(elements_of(results), commands, strict=True)
        return 200, encoder.together([encoder.item(reply, command) for reply, command in replies])

    def _ask(
        self,
        commands: list[RedisCommand],
        read_only: bool,
        budget: ReplyBudget | None = None,
        own: RedisConnection | None = None,
    ) -> Awaitable[list[bytes]]:
        self._writes += any([one.is_write for one in commands])
        return self._upstream.run(commands, read_only, budget, own)


class ShardedGateway:
    """The app in front of a cluster: the number before the dot of a request's token chooses the shard's gateway."""

    def __init__(self, gateways: list[Gateway]) -> None:
        self._of_shard, self._first = {b"%d" % shard: one for shard, one in enumerate(gateways)}, gateways[0]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; a token of no shard is refused by the first gateway."""
        number = _token_in(dict(scope["headers"]), scope["query_string"]).partition(b".")[0]
        await self._of_shard.get(number, self._first)(scope, receive, send)


def _cors(headers: dict[bytes, bytes]) -> Headers:
    """Allow any page: a request needs the token, which no browser sends by itself."""
    origin = headers.get(b"origin")
    if origin is None:
        return []
    asked = headers.get(b"access-control-request-headers")
    allowed = [] if asked is None else [(b"access-control-allow-headers", asked)]
    exposed = (b"access-control-expose-headers", b"upstash-sync-token")
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin"), exposed, *allowed]


async def _respond(send: Send, status: int, content: bytes, about: Headers) -> None:
    """Send a response; the HTTP server omits the body of one to HEAD."""
    headers = [(b"content-length", b"%d" % len(content)), *about]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _read_body(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None when the client disconnected before its end; raises :class:`RefusedError` (413)."""
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise RefusedError(too_large(int(declared), limit), status=413)
    chunks, size = [], 0
    while (message := await receive())["type"] == "http.request":
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise RefusedError(too_large(size, limit), status=413)
        if not message.get("more_body"):
            return b"".join(chunks)
    return None


class HttpProtocol(OneWriteProtocol):
    """One HTTP connection, whose responses are sent at once, in one write.

    A request whose head exceeds ``MAX_HEAD_BYTES`` is answered with 414 or 431. The connection is closed when the
    client reads nothing for ``WRITE_TIMEOUT_S``.
    """

    _head_bytes = 0  # received since the last part of a body, or the last request

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except HttpParserError:
            if not self._has_large_head():
                self.send_400_response("Invalid HTTP request received.")
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            status = 414 if len(self.url) > MAX_HEAD_BYTES // 2 else 431
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def _has_large_head(self) -> bool:
        if self._head_bytes <= MAX_HEAD_BYTES:
            return False
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES

    def on_headers_complete(self) -> None:
        """Called by the parser, which stops on an error."""
        if self._has_large_head():
            raise ValueError("the head is too large")
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            return
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("CONNECT is not supported")
        self._set_offer_aside()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if not self._head_again:
            self._head_bytes = 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Called once a response is written."""
        self._responses.flush()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Called by the event loop: the client reads its response too slowly."""
        super().pause_writing()
        self._start_write_timer(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._write_timer.cancel()
        super().resume_writing()

    def _start_write_timer(self, unread: int) -> None:
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self._abort_unless_read, unread)

    def _abort_unless_read(self, unread_before: int) -> None:
        unread = self.transport.get_write_buffer_size()  # 0 once the connection has ended
        if unread >= unread_before:
            self.transport.abort()
        elif unread:
            self._start_write_timer(unread)
