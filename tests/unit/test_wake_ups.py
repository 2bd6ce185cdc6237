"""When a worker may sleep: only on a subscription over which messages arrive, whatever the store answers."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from overload_demo.errors import StoreRefusedError, StoreUnavailableError
from overload_demo.rest.client import Upstash
from overload_demo.rest.loopback import connect
from overload_demo.store.connect import Store
from overload_demo.store.data_dir import SERVER_SOCKET
from overload_demo.worker import job_source
from overload_demo.worker.job_source import LONGEST_SLEEP_S, WakeUps
from tests.support import hostile as h
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHANNEL, WORKER = "a/b, c:jobs:wake", "name/0123456789abcdef"


def event(text: str) -> bytes:
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


SUBSCRIBED = HEAD + event(f"subscribe,{CHANNEL},1")


def stream(*parts: bytes, then: h.Script = h.stay_silent) -> h.Script:
    """A response in parts, each in a segment of its own."""

    async def script(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        await then(writer)

    return script


@pytest.fixture(params=[h.HOST, h.ELSEWHERE], ids=["on this machine", "elsewhere"])
def by_both_transports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == h.ELSEWHERE and not sys.platform.startswith("linux"):
        pytest.skip("only Linux has a second loopback address without configuration")
    monkeypatch.setattr(h, "HOST", request.param)


async def heard_until_the_end(script: h.Script, **options: Any) -> tuple[list[str], Exception, list[h.Request]]:
    """The messages of one subscription, the error that ends it, and the requests."""
    messages: list[str] = []
    async with h.hostile(script) as server, h.client_of(server.address, **options) as store:
        with pytest.raises((StoreUnavailableError, StoreRefusedError)) as caught:
            await store.subscribe(CHANNEL, messages.append)
    return messages, caught.value, server.requests


@pytest.mark.usefixtures("by_both_transports")
async def test_messages_arrive_however_the_network_cuts_them() -> None:
    wake_up, text = event(f"message,{CHANNEL},"), event(f"message,{CHANNEL},of, some text")
    whole = SUBSCRIBED + wake_up + text
    parts = [whole[at : at + 7] for at in range(0, len(whole), 7)]

    messages, error, [request] = await heard_until_the_end(stream(*parts, then=h.hang_up))

    assert messages == ["", "", "of, some text"]
    assert "subscription" in str(error)
    assert request.path == "/subscribe/a%2Fb%2C%20c%3Ajobs%3Awake"
    assert request.headers["accept"] == "text/event-stream"


@pytest.mark.usefixtures("by_both_transports")
@pytest.mark.parametrize(
    "script",
    [
        h.hang_up,
        h.reset,
        h.stay_silent,
        stream(HEAD),
        stream(SUBSCRIBED, b"0\r\n\r\n"),
        stream(SUBSCRIBED, then=h.reset),
        h.raw(b"\x00\xff not HTTP at all\r\n\r\n"),
        h.answer(200, b"<html>", Content_Type="text/html"),
        h.endless,
    ],
)
async def test_whatever_ends_a_subscription_is_an_unavailable_store(script: h.Script) -> None:
    assert isinstance((await heard_until_the_end(script, timeout_s=0.3))[1], StoreUnavailableError)


@pytest.mark.usefixtures("by_both_transports")
async def test_a_refused_subscription_gives_the_reason() -> None:
    refusal = h.answer(400, {"error": "ERR max number of clients reached"})

    _, error, _ = await heard_until_the_end(refusal)

    assert isinstance(error, StoreRefusedError)
    assert "max number of clients" in str(error)


@dataclass
class Sleeper:
    """An idle worker's part: the wake-ups it listens to, and how often it was called."""

    wake_ups: WakeUps
    upstash: Upstash
    calls: list[None] = field(default_factory=list)

    async def has_been_called(self, times: int) -> bool:
        return len(self.calls) >= times


@contextlib.asynccontextmanager
async def listening(upstash: Upstash, poll_s: float = 3600.0) -> AsyncIterator[Sleeper]:
    calls: list[None] = []
    sleeper = Sleeper(WakeUps(upstash, CHANNEL, WORKER, poll_s, lambda: calls.append(None)), upstash, calls)
    task = asyncio.create_task(sleeper.wake_ups.listen())
    try:
        yield sleeper
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)  # the server accepts and closes what the cancelled attempt has opened


@pytest.fixture
async def upstash(store: Store) -> AsyncIterator[Upstash]:
    async with h.client_of(store[0]) as upstash:
        yield upstash


async def subscribed(sleeper: Sleeper) -> None:
    await wait_until_async("it is subscribed", lambda: sleeper.has_been_called(1))


async def test_a_worker_without_a_subscription_polls(upstash: Upstash) -> None:
    alone = WakeUps(upstash, CHANNEL, WORKER, 5.0, lambda: None)

    assert alone.terms() == (0.0, "")
    assert await alone.confirm() == 0.0


async def test_a_worker_sleeps_once_its_own_message_has_arrived_and_longer_each_time(upstash: Upstash) -> None:
    async with listening(upstash, poll_s=5.0) as sleeper:
        await subscribed(sleeper)

        assert sleeper.wake_ups.terms() == (5.0, WORKER)
        await upstash.command("PUBLISH", CHANNEL, WORKER)

        sleeps = [await sleeper.wake_ups.confirm() for _ in range(5)]
        assert sleeps == [5.0, 15.0, 45.0, 135.0, LONGEST_SLEEP_S]
        assert sleeper.wake_ups.terms() == (LONGEST_SLEEP_S, "")
        await upstash.command("PUBLISH", CHANNEL, "")
        await wait_until_async("it is woken", lambda: sleeper.has_been_called(2))
        assert sleeper.wake_ups.terms() == (5.0, "")


async def test_the_test_message_of_another_worker_wakes_none(upstash: Upstash) -> None:
    async with listening(upstash) as sleeper:
        await subscribed(sleeper)
        sleeper.wake_ups.terms()
        await upstash.command("PUBLISH", CHANNEL, "another/0123456789abcdef")

        assert await sleeper.wake_ups.confirm() > 0
        assert len(sleeper.calls) == 1


async def test_a_subscription_that_begins_or_ends_makes_the_worker_look(upstash: Upstash) -> None:
    async with listening(upstash) as sleeper:
        await subscribed(sleeper)
        await upstash.command("PUBLISH", CHANNEL, WORKER)

        for calls in (3, 5):
            sleeper.wake_ups.terms()
            end_subscriptions(upstash)
            await wait_until_async("it has ended and begun", lambda calls=calls: sleeper.has_been_called(calls))
            assert await sleeper.wake_ups.confirm() == 0.0, "the mark was set for the subscription that has ended"


def end_subscriptions(upstash: Upstash) -> None:
    """Cut every subscription at the server, not through the gateway."""
    with connect(str(Path(upstash.address.socket).with_name(SERVER_SOCKET))) as link:
        link.sendall(b"CLIENT KILL TYPE pubsub\r\n")
        assert link.recv(100).startswith(b":")


async def test_a_connection_that_has_become_silent_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a NAT that has forgotten it."""
    monkeypatch.setattr(job_source, "LONGEST_SLEEP_S", 2.0)
    monkeypatch.setattr(job_source, "ECHO_WITHIN_S", 0.05)
    silent = stream(SUBSCRIBED, event(f"message,{CHANNEL},{WORKER}"))
    async with h.hostile(silent) as server, h.client_of(server.address) as upstash, listening(upstash) as sleeper:
        sleeps = set()

        async def has_subscribed_again() -> bool:
            sleeper.wake_ups.terms()
            sleeps.add(await sleeper.wake_ups.confirm())
            return len(server.requests) > 1

        await wait_until_async("it has subscribed again", has_subscribed_again)

    assert sleeps == {0.0, 2.0}, "it slept while the message was recent, then it polled"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (stream(SUBSCRIBED), "what a script publishes does not arrive"),
        (h.answer(400, {"error": "NOPERM no permission"}), "does not allow this"),
        (h.answer(400, {"error": "ERR Command is not available: 'SUBSCRIBE'"}), "not available"),
        (h.hang_up, "the subscription was lost"),
    ],
)
async def test_a_worker_that_cannot_be_woken_polls_and_logs_the_reason_once(
    script: h.Script, reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_source, "ECHO_WITHIN_S", 0.05)
    monkeypatch.setattr(job_source, "RETRY_FIRST_S", 0.001)
    caplog.set_level(logging.INFO)
    async with h.hostile(script) as server, h.client_of(server.address) as upstash, listening(upstash) as sleeper:

        async def has_tried_again() -> bool:
            sleeper.wake_ups.terms()
            assert await sleeper.wake_ups.confirm() == 0.0
            return len(server.requests) >= 4

        await wait_until_async("it has subscribed again and again", has_tried_again)

    [line] = caplog.messages
    assert line.startswith("no wake-ups, polling for jobs: ")
    assert reason in line
