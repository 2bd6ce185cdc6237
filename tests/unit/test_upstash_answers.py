"""Any reply of a store becomes a result or a typed error with a reliable outcome."""

import gzip
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from overload_demo.errors import (
    Outcome,
    StoreAuthError,
    StoreError,
    StoreFullError,
    StoreQuotaError,
    StoreRefusedError,
    StoreUnavailableError,
)
from overload_demo.rest import Script, ScriptCall
from overload_demo.rest.client import Upstash
from tests.support import hostile as h
from tests.support.cases import plain_first
from tests.support.running import free_port

pytestmark = pytest.mark.anyio

CALL = ScriptCall(Script("probe", "return 1"), ["k"], ["a"])
NOT_DONE, UNKNOWN = Outcome.NOT_ENQUEUED, Outcome.UNKNOWN


@pytest.fixture(autouse=True, params=[h.HOST, h.ELSEWHERE], ids=["on this machine", "elsewhere"])
def by_both_transports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == h.ELSEWHERE and not sys.platform.startswith("linux"):
        pytest.skip("only Linux has a second loopback address without configuration")
    monkeypatch.setattr(h, "HOST", request.param)


def refusal(text: str, status: int = 400) -> h.Script:
    return h.answer(status, {"error": text})


GARBAGE = {
    "an HTML error page": h.answer(502, b"<html>Bad Gateway</html>"),
    "an HTML page with 200": h.answer(200, b"<html>Welcome to this hotel's network</html>"),
    "truncated JSON": h.answer(200, b'{"result": [1, 2'),
    "an answer shorter than declared": h.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"result":1}'),
    "an empty body": h.answer(200, b""),
    "no content": h.raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "a number": h.answer(200, 5),
    "null": h.answer(200, None),
    "an object without result": h.answer(200, {"value": 1}),
    "an error that is no text": h.answer(200, {"error": {"code": 1}}),
    "no UTF-8": h.answer(200, b'{"result": "\xff\xfe"}'),
    "deeply nested JSON": h.answer(200, b"[" * 200_000 + b"]" * 200_000),
    "a number of 5,000 digits": h.answer(200, b'{"result": ' + b"9" * 5000 + b"}"),
    "a redirect": h.answer(307, b"", Location="http://127.0.0.1:1/elsewhere"),
    "too many requests": refusal("rate limited", 429),
    "too many requests, in HTML": h.answer(429, b"<html>"),
    "a server error in JSON": refusal("ERR internal", 500),
    "a gzipped body that was not requested": h.answer(200, gzip.compress(b'{"result":1}'), Content_Encoding="gzip"),
    "a huge declared length": h.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"),
    "a declared length of 5,000 digits": h.raw(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"),
    "a negative length": h.raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"),
    "a chunked body without an end": h.endless,
    "bad chunks": h.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
    "no HTTP at all": h.raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "a status line of garbage": h.raw(b"HTTP/1.1 abc \xff\r\n\r\n"),
    "headers without an end": h.raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000),
    "the end of the connection": h.hang_up,
    "a reset": h.reset,
    "nothing": h.stay_silent,
}

KINDS: dict[str, Callable[[Upstash], Awaitable[Any]]] = {
    "command": lambda store: store.command("GET", "k", deadline_s=1.0),
    "run_in_order": lambda store: store.run_in_order(CALL, CALL, deadline_s=1.0),
    "run": lambda store: store.run(CALL, deadline_s=1.0),
    "pipeline": lambda store: store.pipeline([["GET", "k"], ["GET", "k"]], deadline_s=1.0),
}


@pytest.mark.usefixtures("no_repeats")
@pytest.mark.parametrize("kind", plain_first(KINDS, 2))
@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_leaves_the_outcome_unknown(what: str, kind: str) -> None:
    async with h.hostile(GARBAGE[what]) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            await KINDS[kind](store)

        assert caught.value.outcome is UNKNOWN
        assert h.TOKEN not in f"{caught.value!r} {caught.value}"
        assert "\n" not in str(caught.value)


async def test_an_endless_reply_is_cut_by_its_size_before_the_timeout() -> None:
    async with h.hostile(h.endless) as server, h.client_of(server.address, timeout_s=60.0) as store:
        with pytest.raises(StoreUnavailableError, match="too large"):
            await store.command("GET", "k")


@pytest.mark.parametrize("body", [{"result": [1, 2]}, [{"result": 1}], [{"result": 1}] * 3, []])
async def test_a_reply_of_the_wrong_form_is_an_error_of_a_pipeline(body: object) -> None:
    async with h.hostile(h.answer(200, body)) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.pipeline([["GET", "k"], ["GET", "k"]])

        assert caught.value.outcome is UNKNOWN


async def test_an_array_is_an_error_of_a_command() -> None:
    async with h.hostile(h.answer(200, [{"result": 1}])) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreUnavailableError):
            await store.command("GET", "k")


@pytest.mark.parametrize(
    ("script", "kind", "outcome"),
    [
        (refusal("WRONGTYPE wrong kind of value"), StoreRefusedError, NOT_DONE),
        (refusal("ERR syntax error", 200), StoreRefusedError, NOT_DONE),
        (refusal("ERR max request size exceeded. Limit: 1, Actual: 2", 413), StoreRefusedError, NOT_DONE),
        (refusal("WRONGPASS invalid or missing auth token", 401), StoreAuthError, NOT_DONE),
        (h.answer(401, b"<html>Unauthorized</html>"), StoreAuthError, NOT_DONE),
        (refusal("NOPERM this user has no permissions"), StoreAuthError, NOT_DONE),
        (refusal("ERR max requests limit exceeded. Limit: 500000, Usage: 500000."), StoreQuotaError, NOT_DONE),
        (refusal("READONLY Writes are temporarily rejected"), StoreUnavailableError, NOT_DONE),
        (refusal("OOM command not allowed when used memory > 'maxmemory'."), StoreFullError, NOT_DONE),
        (refusal("ERR DB capacity quota exceeded"), StoreFullError, NOT_DONE),
        (refusal("LOADING Redis is loading the dataset in memory"), StoreUnavailableError, NOT_DONE),
        (refusal("MISCONF Errors writing to the AOF file"), StoreUnavailableError, NOT_DONE),
        (refusal("ERR no server: nothing was done, try again", 503), StoreUnavailableError, NOT_DONE),
        (refusal("ERR cut off: the outcome is unknown", 503), StoreUnavailableError, UNKNOWN),
    ],
)
@pytest.mark.usefixtures("no_repeats")
async def test_each_error_reply_has_its_type_and_outcome(
    script: h.Script, kind: type[StoreError], outcome: str
) -> None:
    async with h.hostile(script) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreError) as caught:
            await store.command("SET", "k", "v")

        assert (type(caught.value), caught.value.outcome) == (kind, outcome)


async def test_an_error_in_the_middle_of_a_script_leaves_the_outcome_unknown() -> None:
    async with (
        h.hostile(refusal("WRONGTYPE script: abc, on @user_script:9.")) as server,
        h.client_of(server.address) as store,
    ):
        with pytest.raises(StoreRefusedError) as caught:
            await store.run(CALL)

        assert caught.value.outcome is UNKNOWN


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (refusal("ERR max request size exceeded. Limit: 1, Actual: 2", 413), NOT_DONE),
        (h.answer(413, b"<html>Request Entity Too Large</html>"), NOT_DONE),
        (refusal("ERR max request size exceeded. Limit: 1, Actual: 2", 200), UNKNOWN),
    ],
    ids=["the store's words", "a proxy's words", "a reply too large"],
)
async def test_a_script_too_large_to_send_did_not_run_but_one_with_too_large_a_reply_did(
    script: h.Script, outcome: Outcome
) -> None:
    async with h.hostile(script) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreRefusedError) as caught:
            await store.run(CALL)

        assert caught.value.outcome is outcome
        assert len(server.requests) == 1


async def test_a_failed_command_of_a_pipeline_fails_no_other() -> None:
    body = [{"result": "a"}, {"error": "WRONGTYPE no list"}, {"result": None}, "?"]
    async with h.hostile(h.answer(200, body)) as server, h.client_of(server.address) as store:
        first, second, third, fourth = await store.pipeline([["GET", "k"]] * 4)

        assert (first, third) == ("a", None)
        assert isinstance(second, StoreRefusedError)
        assert isinstance(fourth, StoreUnavailableError)


async def test_a_connection_cut_before_the_request_was_read_leaves_the_outcome_unknown() -> None:
    async with h.hostile(before_reading=h.reset) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.command("SET", "k", "v")

        assert caught.value.outcome is UNKNOWN


@pytest.mark.usefixtures("no_repeats")
async def test_without_a_listener_nothing_was_done() -> None:
    address = h.Address(f"http://127.0.0.1:{free_port()}", h.SecretStr(h.TOKEN))
    async with h.client_of(address) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.command("SET", "k", "v")

        assert caught.value.outcome is NOT_DONE
