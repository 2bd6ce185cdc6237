"""The REST transport to Upstash Redis, and to the embedded store that speaks the same protocol. The only httpx.

It trusts nothing it receives: status *and* body are checked, sizes are capped, and whatever is not a well-formed answer
becomes :class:`StoreUnavailableError`. It repeats a request only where that is harmless: when the request certainly was
not carried out, or when the caller says that the command is ``repeatable`` (running it twice changes nothing more).
"""

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any
from urllib.parse import urlsplit

import httpx

from overload_demo.config import LOOPBACK_HOSTS
from overload_demo.errors import Outcome, StoreError, StoreRefusedError, StoreUnavailableError
from overload_demo.rest.address import Address
from overload_demo.rest.error_mapping import error_in
from overload_demo.rest.loopback import LoopbackTransport, ReplyTooLargeError

Argument = str | int | float
Command = Sequence[Argument]
Parse = Callable[[int, Any], Any]

MAX_REPLY_BYTES = 32 * 1024 * 1024
BACKOFF_FIRST_S, BACKOFF_LONGEST_S = 0.02, 1.0


@dataclass(frozen=True)
class Script:
    """A Lua script; ``sha`` is what EVALSHA calls it by."""

    name: str
    text: str

    @cached_property
    def sha(self) -> str:
        """SHA-1 of the text, as the server computes it."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class ScriptCall:
    """One call of a script with its KEYS and ARGV."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]

    def by_sha(self) -> list[Argument]:
        """The call as EVALSHA, short."""
        return ["EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args]

    def by_text(self) -> list[Argument]:
        """The call as EVAL, which also puts the script into the server's cache."""
        return ["EVAL", self.script.text, len(self.keys), *self.keys, *self.args]


class Upstash:
    """A client with a fixed pool of connections to one store.

    ``connections`` callers at most may call at the same time (the pool never makes them wait); ``timeout_s`` bounds one
    HTTP exchange. ``refresh`` (blocking, run in a thread) is asked for the address again when nobody answers at the
    present one; it may raise :class:`StoreError`. ``on_error`` is told of every failed attempt, ``calls`` counts them
    all. Use from one event loop; close with :meth:`aclose`. A cancelled call's effect may be unknown: do not cancel.
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
        timeout = httpx.Timeout(timeout_s, connect=min(2.0, timeout_s))
        self._extensions = {"timeout": timeout.as_dict()}
        self._looking: asyncio.Task[StoreError | None] | None = None
        self._sync_token = ""
        self._link = self._new_link()

    def _new_link(self) -> "_Link":
        host = urlsplit(self.address.origin).hostname
        if host in LOOPBACK_HOSTS:  # and no proxy variable may catch it
            near = LoopbackTransport(self._connections, MAX_REPLY_BYTES, self.address.socket)
            return _Link(near.handle_async_request, near.aclose)
        limits = httpx.Limits(
            max_connections=self._connections, max_keepalive_connections=self._connections, keepalive_expiry=30
        )
        client = httpx.AsyncClient(limits=limits, follow_redirects=False)
        return _Link(partial(client.send, stream=True), client.aclose)

    def _request(self, path: str, content: bytes) -> httpx.Request:
        # Not client.build_request: merging defaults and parsing the same URL again took a fifth of an exchange's time.
        headers = {
            "Authorization": f"Bearer {self.address.token.get_secret_value()}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "Upstash-Sync-Token": self._sync_token,
        }
        url = _parsed(self.address.origin + path)
        return httpx.Request("POST", url, headers=headers, content=content, extensions=self._extensions)

    async def aclose(self) -> None:
        """Close all connections; further calls fail."""
        if self._looking is not None:
            self._looking.cancel()
        await self._link.aclose()

    async def command(self, *command: Argument, repeatable: bool = False, deadline_s: float | None = None) -> Any:
        """Run one command and return its reply (JSON types; nil is None). Raises :class:`StoreError`."""

        def parse(status: int, body: Any) -> Any:
            if isinstance(body, dict) and "result" in body and status == 200:
                return body["result"]
            raise error_in(status, body, scripted=str(command[0]).upper().startswith("EVAL"))

        return await self._exchange("/", command, parse, repeatable=repeatable, deadline_s=deadline_s)

    async def pipeline(
        self, commands: Sequence[Command], *, repeatable: bool = False, deadline_s: float | None = None
    ) -> list[Any]:
        """Run commands in order, not atomically; a failed one yields its :class:`StoreError` in its place."""

        def parse(status: int, body: Any) -> list[Any]:
            if status != 200 or not isinstance(body, list) or len(body) != len(commands):
                raise error_in(status, body)
            return [self._noted(_element(one)) for one in body]

        replies: list[Any] = await self._exchange(
            "/pipeline", commands, parse, repeatable=repeatable, deadline_s=deadline_s
        )
        return replies

    async def run(self, call: ScriptCall, *, deadline_s: float | None = None) -> Any:
        """Run a script by its SHA, or by its text where the server does not know it yet.

        All scripts of this package may be repeated harmlessly, so a lost reply is asked for again until ``deadline_s``.
        """
        give_up_at = time.monotonic() + (self._timeout_s if deadline_s is None else deadline_s)
        try:
            return await self.command(*call.by_sha(), repeatable=True, deadline_s=deadline_s)
        except StoreRefusedError as error:
            if not _is_unknown_script(error):
                raise
            earlier = error.outcome
        try:
            remaining_s = give_up_at - time.monotonic()
            return await self.command(*call.by_text(), repeatable=True, deadline_s=remaining_s)
        except StoreError as error:
            error.outcome = _either(earlier, error.outcome)
            raise

    async def run_in_order(self, *calls: ScriptCall, deadline_s: float | None = None) -> list[Any]:
        """Run several scripts in one exchange; a failed one yields its :class:`StoreError` in its place."""
        give_up_at = time.monotonic() + (self._timeout_s if deadline_s is None else deadline_s)
        replies = await self.pipeline([call.by_sha() for call in calls], repeatable=True, deadline_s=deadline_s)
        if any(_is_unknown_script(reply) for reply in replies):
            by_text = [call.by_text() for call in calls]
            remaining_s = give_up_at - time.monotonic()
            replies = await self.pipeline(by_text, repeatable=True, deadline_s=remaining_s)
        return replies

    async def _exchange(
        self, path: str, body: Sequence[Any], parse: Parse, *, repeatable: bool, deadline_s: float | None
    ) -> Any:
        """Send until there is an answer, the deadline has passed, or a repeat could do harm."""
        content = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        give_up_at = time.monotonic() + (self._timeout_s if deadline_s is None else deadline_s)
        backoff_s, outcome = BACKOFF_FIRST_S, Outcome.NOT_ENQUEUED
        while True:
            try:
                return parse(*await self._post(path, content, give_up_at - time.monotonic()))
            except StoreError as error:
                # whatever this attempt met, an earlier one may have been carried out, or may still be
                outcome = error.outcome = _either(outcome, error.outcome)
                self._noted(error)
                pause_s = random.uniform(0, backoff_s)
                out_of_time = time.monotonic() + pause_s >= give_up_at
                may_repeat = repeatable or outcome is Outcome.NOT_ENQUEUED
                if out_of_time or not may_repeat or not isinstance(error, StoreUnavailableError):
                    raise
            await asyncio.sleep(pause_s)
            backoff_s = min(2 * backoff_s, BACKOFF_LONGEST_S)

    def _noted(self, reply: Any) -> Any:
        """Tell of a reply that is an error. That the server does not know a script yet is none."""
        if isinstance(reply, StoreError) and not _is_unknown_script(reply):
            self._on_error(reply)
        return reply

    async def _post(self, path: str, content: bytes, remaining_s: float) -> tuple[int, Any]:
        """One HTTP exchange; returns the status and the decoded JSON body."""
        address, link = self.address, self._link
        limit_s = max(0.05, min(self._timeout_s, remaining_s))
        give_up_at = time.monotonic() + remaining_s
        self.calls += 1
        try:
            async with asyncio.timeout(limit_s):
                response = await link.send(self._request(path, content))
                try:
                    text = await _read_limited(response)
                finally:
                    await response.aclose()
        except ReplyTooLargeError:
            raise StoreUnavailableError("the store's answer is too large", Outcome.UNKNOWN) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            await self._look_again(address, give_up_at - time.monotonic())
            raise StoreUnavailableError(f"the store cannot be reached ({type(error).__name__})") from None
        except httpx.PoolTimeout:
            await self._replace_link(link)
            raise StoreUnavailableError("no connection to the store was free") from None
        except (TimeoutError, httpx.TimeoutException):
            raise StoreUnavailableError("the store did not answer in time", Outcome.UNKNOWN) from None
        except httpx.HTTPError as error:
            reason = f"the exchange with the store broke off ({type(error).__name__})"
            raise StoreUnavailableError(reason, Outcome.UNKNOWN) from None
        sync_token = response.headers.get("upstash-sync-token", "")
        if sync_token.isascii() and sync_token.isprintable():
            self._sync_token = sync_token or self._sync_token
        return response.status_code, _decoded(response.status_code, text)

    async def _look_again(self, failed: Address, within_s: float) -> None:
        """Nobody answers at ``failed``: ask where the store is now, once for all; nobody waits past its deadline."""
        if self._refresh is None or self.address is not failed:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(self._refresh))
        await asyncio.wait({self._looking}, timeout=max(0.0, within_s))
        if self._looking.done() and not self._looking.cancelled() and (error := self._looking.result()):
            raise error

    async def _look(self, refresh: Callable[[], Address]) -> StoreError | None:
        try:
            self.address = await asyncio.to_thread(refresh)
        except StoreError as error:
            return error
        return None

    async def _replace_link(self, broken: "_Link") -> None:
        """A pool that times out may have leaked its slots for ever (httpcore issue 1093): start with a new one."""
        if self._link is broken:
            self._link = self._new_link()
            await broken.aclose()


@dataclass(frozen=True)
class _Link:
    """What requests go through: ``send`` returns httpx's response, its body possibly still to come."""

    send: Callable[[httpx.Request], Awaitable[httpx.Response]]
    aclose: Callable[[], Awaitable[None]]


_parsed = lru_cache(maxsize=16)(httpx.URL)


async def _read_limited(response: httpx.Response) -> bytes:
    declared = response.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > MAX_REPLY_BYTES:
        raise StoreUnavailableError("the store's answer is too large", Outcome.UNKNOWN)
    chunks, size = [], 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise StoreUnavailableError("the store's answer is too large", Outcome.UNKNOWN)
        chunks.append(chunk)
    return b"".join(chunks)


def _decoded(status: int, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if status in {401, 413}:  # the status says it all
            return None
        reason = f"the store answered {status} with something else than JSON"
        raise StoreUnavailableError(reason, Outcome.UNKNOWN) from None


def _element(one: Any) -> Any:
    if isinstance(one, dict) and "result" in one:
        return one["result"]
    return error_in(200, one, scripted=True)


def _either(first: Outcome, second: Outcome) -> Outcome:
    """What is known after two attempts: unknown if it is for one of them."""
    return Outcome.UNKNOWN if Outcome.UNKNOWN in {first, second} else Outcome.NOT_ENQUEUED


def _is_unknown_script(reply: Any) -> bool:
    return isinstance(reply, StoreRefusedError) and "NOSCRIPT" in str(reply)
