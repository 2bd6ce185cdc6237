"""Which requests the client repeats, how it finds the store again, and which secrets it never shows."""

import asyncio
import logging
import sys
import threading
from typing import Any

import pytest
from pydantic import SecretStr

from overload_demo.config import load_settings
from overload_demo.errors import Outcome, StoreError, StoreRefusedError, StoreUnavailableError
from overload_demo.rest import Address, Script, ScriptCall
from overload_demo.rest.client import Upstash
from tests.load.scripted_server import full_accept_queue
from tests.support import hostile as h
from tests.support.running import free_port

pytestmark = pytest.mark.anyio

CALL = ScriptCall(Script("probe", "return 1"), ["k"], ["a"])
UNCLEAR = [h.hang_up, h.reset, h.stay_silent, h.answer(502, b"<html>"), h.answer(200, b"{")]


@pytest.fixture(autouse=True, params=[h.HOST, h.ELSEWHERE], ids=["on this machine", "elsewhere"])
def by_both_transports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == h.ELSEWHERE and not sys.platform.startswith("linux"):
        pytest.skip("only Linux has a second loopback address without configuration")
    monkeypatch.setattr(h, "HOST", request.param)


@pytest.mark.parametrize("script", UNCLEAR)
async def test_a_command_that_may_not_be_repeated_is_sent_once(script: h.Script) -> None:
    async with h.hostile(script, h.answer(200, {"result": 1})) as server:
        async with h.client_of(server.address, timeout_s=1.0) as store:
            with pytest.raises(StoreUnavailableError):
                await store.command("RPUSH", "k", "v", deadline_s=5.0)

        assert len(server.requests) == 1


@pytest.mark.parametrize("script", UNCLEAR)
async def test_a_repeatable_command_is_sent_until_there_is_a_reply(script: h.Script) -> None:
    async with h.hostile(script, script, h.answer(200, {"result": 7})) as server:
        async with h.client_of(server.address, timeout_s=1.0) as store:
            result = await store.command("GET", "k", repeatable=True, deadline_s=10.0)

        assert (result, len(server.requests)) == (7, 3)


async def test_a_request_that_certainly_was_not_carried_out_is_repeated() -> None:
    loading = h.answer(400, {"error": "LOADING Redis is loading the dataset in memory"})
    async with h.hostile(loading, h.answer(200, {"result": 7})) as server:
        async with h.client_of(server.address) as store:
            result = await store.command("RPUSH", "k", "v", deadline_s=5.0)

        assert (result, len(server.requests)) == (7, 2)


@pytest.mark.parametrize("deadline_s", [0.3, 2.5])
async def test_a_store_that_never_accepts_a_connection_leaves_nothing_unknown(deadline_s: float) -> None:
    with full_accept_queue(h.HOST) as url:
        async with h.client_of(Address(url, SecretStr("t"))) as store:
            with pytest.raises(StoreUnavailableError) as caught:
                await store.command("SET", "k", "v", repeatable=True, deadline_s=deadline_s)

    assert caught.value.outcome is Outcome.NOT_ENQUEUED


async def test_repeats_end_at_the_deadline() -> None:
    async with h.hostile(h.hang_up) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.command("GET", "k", repeatable=True, deadline_s=1.0)

        assert caught.value.outcome is Outcome.UNKNOWN
        assert len(server.requests) > 1


async def test_repeats_of_what_was_not_carried_out_end_before_the_deadline() -> None:
    loading = h.answer(400, {"error": "LOADING Redis is loading the dataset in memory"})
    async with h.hostile(loading) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            await asyncio.wait_for(store.run(CALL, deadline_s=60.0, unsent_s=0.2), 30.0)

        assert caught.value.outcome is Outcome.NOT_ENQUEUED
        assert len(server.requests) > 1


async def test_repeats_of_what_may_have_been_carried_out_go_on_until_the_deadline() -> None:
    loading = h.answer(400, {"error": "LOADING Redis is loading the dataset in memory"})
    scripts = [h.hang_up, *[loading] * 5, h.answer(200, {"result": 7})]
    async with h.hostile(*scripts) as server, h.client_of(server.address) as store:
        assert await store.run(CALL, deadline_s=60.0, unsent_s=0.0) == 7


async def test_an_unknown_outcome_stays_unknown_when_later_attempts_are_refused() -> None:
    loading = h.answer(400, {"error": "LOADING Redis is loading the dataset in memory"})
    async with h.hostile(h.hang_up, loading) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.command("GET", "k", repeatable=True, deadline_s=0.2)

        assert caught.value.outcome is Outcome.UNKNOWN


async def test_an_unknown_outcome_stays_unknown_when_the_repeat_fails_for_good() -> None:
    full = h.answer(400, {"error": "OOM command not allowed when used memory > 'maxmemory'."})
    async with h.hostile(h.hang_up, full) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreError) as caught:
            await store.run(CALL, deadline_s=5.0)

        assert caught.value.outcome is Outcome.UNKNOWN


async def test_an_unknown_script_is_sent_as_text_once() -> None:
    unknown = h.answer(400, {"error": "NOSCRIPT No matching script."})
    async with h.hostile(unknown, h.answer(200, {"result": 1})) as server, h.client_of(server.address) as store:
        assert await store.run(CALL) == 1

        assert [request.body[:2] for request in server.requests] == [
            ["EVALSHA", CALL.script.sha],
            ["EVAL", "return 1"],
        ]


async def test_sending_a_script_as_text_has_the_same_deadline() -> None:
    given: list[float] = []

    class Recording(Upstash):
        async def _exchange(self, *arguments: Any) -> Any:
            _, _, _, _, deadline_s, *_ = arguments
            given.append(deadline_s)
            await asyncio.sleep(0.01)
            return await super()._exchange(*arguments)

    unknown, one_unknown = {"error": "NOSCRIPT No matching script."}, [{"error": "NOSCRIPT No matching script."}]
    scripts = [h.answer(400, unknown), h.answer(200, {"result": 1}), h.answer(200, one_unknown)]
    async with h.hostile(*scripts, h.answer(200, [{"result": 1}])) as server:
        store = Recording(server.address)
        await store.run(CALL, deadline_s=5.0)
        await store.run_in_order(CALL, deadline_s=5.0)
        await store.aclose()

    first, second, third, fourth = given
    assert (first, third) == (5.0, 5.0)
    assert max(second, fourth) < 5.0


async def test_a_script_that_stays_unknown_fails_the_call() -> None:
    unknown = h.answer(400, {"error": "NOSCRIPT No matching script."})
    async with h.hostile(unknown) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreRefusedError):
            await store.run(CALL)

        assert len(server.requests) == 2


async def test_scripts_in_order_are_sent_as_text_when_one_is_unknown() -> None:
    first = h.answer(200, [{"result": 1}, {"error": "NOSCRIPT No matching script."}])
    async with h.hostile(first, h.answer(200, [{"result": 1}, {"result": 2}])) as server:
        async with h.client_of(server.address) as store:
            assert await store.run_in_order(CALL, CALL) == [1, 2]

        assert [command[0] for command in server.requests[1].body] == ["EVAL", "EVAL"]


async def test_the_sync_token_is_echoed() -> None:
    scripts = [h.answer(200, {"result": 1}, Upstash_Sync_Token="abc"), h.answer(200, {"result": 1})]
    async with h.hostile(*scripts) as server, h.client_of(server.address) as store:
        for _ in range(3):
            await store.command("GET", "k")

        assert [request.headers["upstash-sync-token"] for request in server.requests] == ["", "abc", "abc"]


async def test_a_malformed_sync_token_is_not_echoed() -> None:
    async with h.hostile(h.answer(200, {"result": 1}, Upstash_Sync_Token="\xe9\xff")) as server:
        async with h.client_of(server.address) as store:
            assert [await store.command("GET", "k") for _ in range(2)] == [1, 1]


async def test_a_redirect_is_not_followed_with_the_token() -> None:
    async with h.hostile(h.answer(200, {"result": 1})) as elsewhere:
        redirect = h.answer(307, b"", Location=elsewhere.address.url)
        async with h.hostile(redirect) as server, h.client_of(server.address) as store:
            with pytest.raises(StoreUnavailableError):
                await store.command("GET", "k", deadline_s=0.1)

        assert elsewhere.requests == []


async def test_loopback_requests_use_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h, "HOST", "127.0.0.1")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with h.hostile(h.answer(200, {"result": 1})) as server, h.client_of(server.address) as store:
        assert await store.command("GET", "k") == 1


async def test_requests_to_upstash_use_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with h.hostile(h.answer(200, {"result": "from the proxy"})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.address.url)
        async with h.client_of(Address("http://store.invalid", SecretStr(h.TOKEN))) as store:
            assert await store.command("GET", "k") == "from the proxy"


async def test_the_address_is_refreshed_when_the_connection_fails() -> None:
    async with h.hostile(h.answer(200, {"result": 1})) as server:
        gone = Address(f"http://127.0.0.1:{free_port()}", SecretStr("old"))
        asked = []

        def refresh() -> Address:
            asked.append(threading.current_thread())
            return server.address

        async with h.client_of(gone, refresh=refresh) as store:
            results = await asyncio.gather(*(store.command("GET", "k", deadline_s=5.0) for _ in range(5)))

        assert results == [1] * 5
        assert len(asked) == 1
        assert asked[0] is not threading.main_thread()
        assert server.requests[0].headers["authorization"] == f"Bearer {h.TOKEN}"


@pytest.mark.parametrize("limits", [{"deadline_s": 1.0}, {"deadline_s": 60.0, "unsent_s": 1.0}])
async def test_a_slow_refresh_delays_no_caller_past_its_deadline(limits: dict[str, float]) -> None:
    found = threading.Event()

    def refresh() -> Address:
        found.wait(30.0)
        raise StoreUnavailableError("gone")

    gone = Address(f"http://127.0.0.1:{free_port()}", SecretStr("old"))
    async with h.client_of(gone, refresh=refresh) as store:
        try:
            with pytest.raises(StoreUnavailableError) as caught:
                await asyncio.wait_for(store.command("GET", "k", **limits), 10.0)
        finally:
            found.set()

    assert caught.value.outcome is Outcome.NOT_ENQUEUED


async def test_the_connections_survive_many_timeouts() -> None:
    """After the pool was full of requests without a reply, the next request gets its reply."""
    is_silent = True

    async def silent_at_first(writer: asyncio.StreamWriter) -> None:
        await (h.stay_silent if is_silent else h.answer(200, {"result": 1}))(writer)

    async with h.hostile(silent_at_first) as server:
        async with h.client_of(server.address, connections=4, timeout_s=1.0) as store:
            for _ in range(2):
                lost = await asyncio.gather(*(store.command("GET", "k") for _ in range(4)), return_exceptions=True)
                assert all(isinstance(one, StoreUnavailableError) for one in lost)

            is_silent = False
            assert await store.command("GET", "k", deadline_s=5.0) == 1


async def test_the_token_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(upstash_redis_rest_url="https://x.upstash.io", upstash_redis_rest_token=h.TOKEN)
    with caplog.at_level(logging.DEBUG):
        async with h.hostile(h.answer(401, {"error": f"WRONGPASS {h.TOKEN}"})) as server:
            async with h.client_of(server.address) as store:
                with pytest.raises(StoreError) as caught:
                    await store.command("GET", "k")

                shown = [repr(settings), str(settings), repr(server.address), repr(store), repr(caught.value)]
    shown += [str(caught.value.__context__), server.requests[0].path, server.address.url]
    shown += [record.getMessage() for record in caplog.records if not record.name.startswith("httpcore")]

    assert [text for text in shown if h.TOKEN in text] == []
