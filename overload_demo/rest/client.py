"""The REST client of a store: Upstash Redis, or the embedded store, which speaks the same protocol.

Nothing received is trusted: status and body are checked, sizes are limited, and a reply that is not well formed becomes
:class:`StoreUnavailableError`. A request is repeated only if that is harmless: it certainly was not carried out, or
the caller declared the command ``repeatable`` (running it twice changes nothing more).
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import lru_cache, partial
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from overload_demo.config import LOOPBACK_HOSTS
from overload_demo.errors import Outcome, StoreError, StoreRefusedError, StoreUnavailableError
from overload_demo.rest import Address, Argument, Command, Confirmation, ScriptCall, error_in
from overload_demo.rest.loopback import LoopbackTransport, ReplyTooLargeError, Sending

Send = Callable[[httpx.Request], Awaitable[httpx.Response]]
Reply = TypeVar("Reply")
Limit = float | None  # seconds; None = the default

MAX_REPLY_BYTES = 32 * 1024 * 1024
MAX_EVENT_BYTES = 65_536  # chosen; a wake-up has a hundred
BACKOFF_FIRST_S, BACKOFF_LONGEST_S = 0.02, 1.0
LONGEST_WAIT_S = 1.0  # for replicas, in one exchange; the next one may reach a new primary


class Upstash:
    """A client with a fixed pool of connections to one store; use it from one event loop.

    At most ``connections`` callers may call at the same time, so that none waits for the pool. ``timeout_s`` bounds one
    HTTP exchange; ``deadline_s`` of a call bounds all its attempts, ``unsent_s`` those of a call that certainly was
    not carried out. ``refresh`` (blocking, run in a thread) returns the present address after a failed connection; it
    may raise :class:`StoreError`. ``on_error`` gets every failed attempt; ``calls`` counts all attempts. Do not cancel
    a call: its effect would be unknown.
    """

    def __init__(
        self,
        address: Address,
        *,
        connections: int = 8,
        timeout_s: float = 5.0,
        refresh: Callable[[], Address] | None = None,
        on_error: Callable[[StoreError], object] = lambda _: None,
    ) -> None:
        self.address = address
        self.calls = 0
        self._connections, self._timeout_s, self._refresh, self._on_error = connections, timeout_s, refresh, on_error
        self._extensions = {"timeout": httpx.Timeout(timeout_s, connect=min(2.0, timeout_s)).as_dict()}
        self._refreshing: asyncio.Task[StoreError | None] | None = None
        self._sync_token = ""
        self._send, self._send_stream, self._close = self._new_link()

    async def aclose(self) -> None:
        """Close all connections; further calls fail."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        await self._close()

    async def command(
        self, *command: Argument, repeatable: bool = False, deadline_s: Limit = None, unsent_s: Limit = None
    ) -> Any:
        """Run one command and return its reply (JSON types; nil is None). Raises :class:`StoreError`."""

        def parse(status: int, body: Any) -> Any:
            if isinstance(body, dict) and "result" in body and status == 200:
                return body["result"]
            raise error_in(status, body, scripted=str(command[0]).upper().startswith("EVAL"))

        return await self._exchange("/", command, parse, repeatable, deadline_s, unsent_s)

    async def pipeline(
        self, commands: Sequence[Command], *, repeatable: bool = False, deadline_s: Limit = None
    ) -> list[Any]:
        """Run commands in order, not atomically; a failed one yields its :class:`StoreError` in its place."""

        def parse(status: int, body: Any) -> list[Any]:
            return [self._reported(one) for one in _elements(status, body, len(commands))]

        return await self._exchange("/pipeline", commands, parse, repeatable, deadline_s)

    async def run(
        self,
        call: ScriptCall,
        *,
        deadline_s: Limit = None,
        unsent_s: Limit = None,
        confirmation: Confirmation | None = None,
    ) -> Any:
        """Run a script by its SHA, or by its text if the server does not know it yet.

        Every script of this package is safe to repeat, so a lost reply is requested again until ``deadline_s``, and so
        is a missing ``confirmation``: then the outcome is unknown.
        """
        send, give_up_at = partial(self._confirmed, confirmation, unsent_s), self._give_up_at(deadline_s)
        try:
            return await send(call.by_sha(), deadline_s)
        except StoreRefusedError as error:
            if not _is_unknown_script(error):
                raise
            earlier = error.outcome
        try:
            return await send(call.by_text(), give_up_at - time.monotonic())
        except StoreError as error:
            if earlier is Outcome.UNKNOWN:
                error.outcome = earlier
            raise

    async def _confirmed(
        self, confirmation: Confirmation | None, unsent_s: Limit, command: Command, deadline_s: Limit
    ) -> Any:
        if confirmation is None:
            return await self.command(*command, repeatable=True, deadline_s=deadline_s, unsent_s=unsent_s)
        replicas, touch = confirmation
        longest_s = min(LONGEST_WAIT_S, (self._timeout_s if deadline_s is None else deadline_s) / 2)
        commands = [command, touch.by_text(), ("WAIT", replicas, max(1, int(1000 * longest_s)))]
        missing: list[str] = []

        def parse(status: int, body: Any) -> Any:
            reply, touched, confirmed = _elements(status, body, len(commands))
            if isinstance(reply, StoreError):
                raise reply
            if isinstance(touched, StoreError) or not isinstance(confirmed, int) or confirmed < replicas:
                found = touched if isinstance(touched, StoreError) else confirmed
                missing.append(f"replicas that have the write: {found}, not {replicas}")
                raise StoreUnavailableError(missing[-1], Outcome.UNKNOWN)
            return reply

        try:
            return await self._exchange("/pipeline", commands, parse, True, deadline_s, unsent_s)
        except StoreUnavailableError as error:  # mostly that the deadline passed in a WAIT: give the reason too
            error.args = ("; ".join(dict.fromkeys([*missing[-1:], str(error)])),)
            raise

    async def run_in_order(self, *calls: ScriptCall, deadline_s: Limit = None) -> list[Any]:
        """Run several scripts in one exchange; a failed one yields its :class:`StoreError` in its place."""
        give_up_at = self._give_up_at(deadline_s)
        replies = await self.pipeline([call.by_sha() for call in calls], repeatable=True, deadline_s=deadline_s)
        if any(_is_unknown_script(reply) for reply in replies):
            by_text = [call.by_text() for call in calls]
            replies = await self.pipeline(by_text, repeatable=True, deadline_s=give_up_at - time.monotonic())
        return replies

    def _give_up_at(self, deadline_s: Limit) -> float:
        return time.monotonic() + (self._timeout_s if deadline_s is None else deadline_s)

    async def _exchange(
        self,
        path: str,
        body: Sequence[Any],
        parse: Callable[[int, Any], Reply],
        repeatable: bool,
        deadline_s: Limit,
        unsent_s: Limit = None,
    ) -> Reply:
        """Send until there is a reply, the deadline has passed, or a repeat could do harm."""
        content = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        give_up_at = self._give_up_at(deadline_s)
        until = give_up_at if unsent_s is None else min(give_up_at, time.monotonic() + unsent_s)
        backoff_s, outcome = BACKOFF_FIRST_S, Outcome.NOT_ENQUEUED
        while True:
            try:
                return parse(*await self._post(path, content, give_up_at, until))
            except StoreError as error:
                if outcome is Outcome.UNKNOWN:  # an earlier attempt may have been carried out, or still be
                    error.outcome = outcome
                outcome = error.outcome
                if outcome is Outcome.UNKNOWN:
                    until = give_up_at
                self._reported(error)
                pause_s = random.uniform(0, backoff_s)
                out_of_time = time.monotonic() + pause_s >= until
                may_repeat = repeatable or outcome is Outcome.NOT_ENQUEUED
                if out_of_time or not may_repeat or not isinstance(error, StoreUnavailableError):
                    raise
            await asyncio.sleep(pause_s)
            backoff_s = min(2 * backoff_s, BACKOFF_LONGEST_S)

    def _reported(self, reply: Any) -> Any:
        """Pass an error to ``on_error``, except that the server does not know a script yet."""
        if isinstance(reply, StoreError) and not _is_unknown_script(reply):
            self._on_error(reply)
        return reply

    async def _post(self, path: str, content: bytes, give_up_at: float, refresh_until: float) -> tuple[int, Any]:
        """One HTTP exchange; returns the status and the decoded JSON body."""
        address, send, request, sending = self.address, self._send, self._request(path, content), Sending()
        request.extensions["trace"] = sending
        self.calls += 1
        try:
            async with asyncio.timeout(max(0.05, min(self._timeout_s, give_up_at - time.monotonic()))):
                response = await send(request)
                try:
                    text = await _read_limited(response)
                finally:
                    await response.aclose()
        except ReplyTooLargeError:
            raise StoreUnavailableError("the store's answer is too large", Outcome.UNKNOWN) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            await self._refresh_address(address, refresh_until)
            raise StoreUnavailableError(f"the store cannot be reached ({type(error).__name__})") from None
        except httpx.PoolTimeout:
            await self._replace_link(send)
            raise StoreUnavailableError("no connection to the store was free") from None
        except (TimeoutError, httpx.TimeoutException):
            raise StoreUnavailableError("the store did not answer in time", sending.outcome) from None
        except httpx.HTTPError as error:
            reason = f"the connection to the store was lost during a request ({type(error).__name__})"
            raise StoreUnavailableError(reason, sending.outcome) from None
        if response.status_code == 401:  # another user may have started a new gateway, which has a new token
            await self._refresh_address(address, refresh_until)
            if self.address.token != address.token:
                raise StoreUnavailableError("the store was started again with a new token")
        sync_token = response.headers.get("upstash-sync-token", "")
        if sync_token.isascii() and sync_token.isprintable():
            self._sync_token = sync_token or self._sync_token
        return response.status_code, _decoded(response.status_code, text)

    async def subscribe(self, channel: str, on_message: Callable[[str], object]) -> NoReturn:
        """Subscribe to a channel; ``on_message`` gets "" once the subscription stands, then the text of each message.

        It holds a connection until it is cancelled or ends, which raises :class:`StoreError`. It does not refresh the
        address: a failed command does.
        """
        request = self._request(f"/subscribe/{quote(channel, safe='')}", b"[]")
        request.headers["Accept"] = "text/event-stream"
        request.extensions = {"timeout": self._extensions["timeout"] | {"read": None}}
        self.calls += 1
        try:
            async with asyncio.timeout(self._timeout_s) as limit, aclosing(await self._send_stream(request)) as stream:
                if stream.status_code != 200:
                    raise error_in(stream.status_code, _decoded(stream.status_code, await _read_limited(stream)))
                async for event in _events(stream):
                    limit.reschedule(None)
                    kind, _, text = event.partition(",")
                    on_message(text.removeprefix(f"{channel},") if kind == "message" else "")
        except (TimeoutError, httpx.HTTPError) as error:
            raise StoreUnavailableError(f"the subscription was lost ({type(error).__name__})") from None
        raise StoreUnavailableError("the subscription has ended")

    def _request(self, path: str, body: bytes) -> httpx.Request:
        # Not client.build_request, and headers in bytes: a third less CPU time of an exchange (profiled).
        url, token = _parsed(self.address.origin + path), self.address.token.get_secret_value()
        headers = [
            (b"Host", url.netloc),
            (b"Authorization", b"Bearer " + token.encode()),
            (b"Content-Type", b"application/json"),
            (b"Content-Length", b"%d" % len(body)),
            (b"Accept-Encoding", b"identity"),
            (b"Upstash-Sync-Token", self._sync_token.encode()),
        ]
        return httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(body), extensions=self._extensions)

    async def _refresh_address(self, failed: Address, give_up_at: float) -> None:
        """After a failed connection, get the present address once for all callers; each waits until its deadline."""
        if self._refresh is None or self.address is not failed:
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._call_refresh(self._refresh))
        await asyncio.wait({self._refreshing}, timeout=max(0.0, give_up_at - time.monotonic()))
        if self._refreshing.done() and not self._refreshing.cancelled() and (error := self._refreshing.result()):
            raise error

    async def _call_refresh(self, refresh: Callable[[], Address]) -> StoreError | None:
        try:
            self.address = await asyncio.to_thread(refresh)
        except StoreError as error:
            return error
        return None

    def _new_link(self) -> tuple[Send, Send, Callable[[], Awaitable[None]]]:
        """How requests are sent, also one for a stream, and how the connections are closed."""
        if urlsplit(self.address.origin).hostname in LOOPBACK_HOSTS:
            # Without httpx.AsyncClient, which adds half to the CPU time of an exchange, and without proxies.
            near = LoopbackTransport(self._connections, MAX_REPLY_BYTES, self.address.socket)
            return near.handle_async_request, near.stream, near.aclose
        connections = self._connections
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30)
        client = httpx.AsyncClient(limits=limits, follow_redirects=False)
        send = partial(client.send, stream=True)
        return send, send, client.aclose

    async def _replace_link(self, broken: Send) -> None:
        """Replace a pool that timed out: it may have lost its slots for good (httpcore issue 1093)."""
        if self._send is broken:
            close = self._close
            self._send, self._send_stream, self._close = self._new_link()
            await close()


_parsed = lru_cache(maxsize=16)(httpx.URL)


async def _read_limited(response: httpx.Response) -> bytes:
    if isinstance(response.stream, httpx.ByteStream):  # complete: the loopback transport has limited it
        return b"".join(response.stream)
    text = bytearray()
    async for chunk in response.aiter_raw():
        text += chunk
        if len(text) > MAX_REPLY_BYTES:
            raise ReplyTooLargeError("the body is too large")
    return bytes(text)


async def _events(response: httpx.Response) -> AsyncIterator[str]:
    """The data of each server-sent event."""
    rest = b""
    async for part in response.aiter_raw():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip().decode(errors="replace")
        if len(rest) > MAX_EVENT_BYTES:
            raise ReplyTooLargeError("the event is too large")


def _decoded(status: int, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if status in {401, 413}:  # the status is enough
            return None
        raise StoreUnavailableError(f"the store answered {status} without JSON", Outcome.UNKNOWN) from None


def _elements(status: int, body: Any, count: int) -> list[Any]:
    """The reply or the error of each command of a pipeline."""
    if status != 200 or not isinstance(body, list) or len(body) != count:
        raise error_in(status, body)
    return [
        one["result"] if isinstance(one, dict) and "result" in one else error_in(200, one, scripted=True)
        for one in body
    ]


def _is_unknown_script(reply: Any) -> bool:
    return isinstance(reply, StoreRefusedError) and "NOSCRIPT" in str(reply)
