"""The gateway's parsing of requests and encoding of results, without a server."""

import asyncio
import hashlib
import json
from typing import Any

import pytest

from overload_demo.store.gateway.backing_server import ExternalServer
from overload_demo.store.gateway.commands import (
    LONGEST_WAIT_MS,
    MAX_COMMAND_BYTES,
    NOT_FOR_READERS,
    NOT_OVER_REST,
    READS,
    SCRIPTS_KEPT,
    WRITES,
    RedisCommand,
    RefusedError,
    Scripts,
    path_arguments,
    prepare,
    query_arguments,
)
from overload_demo.store.gateway.endpoint import MAX_BODY_BYTES, Gateway, Tokens
from overload_demo.store.gateway.replies import BASE64, JSON, RESP2, ReplyFormat
from overload_demo.store.gateway.resp import pack
from overload_demo.store.gateway.upstream import Upstream

DANGEROUS = """ACL BGREWRITEAOF BGSAVE CLUSTER CONFIG DEBUG FAILOVER FLUSHALL LATENCY MIGRATE MODULE PSYNC REPLICAOF
SAVE RESTORE-ASKING SHUTDOWN SLAVEOF SLOWLOG SWAPDB SYNC REPLCONF ASKING READONLY PFDEBUG"""


def test_no_dangerous_command_is_on_the_list() -> None:
    assert not READS & WRITES
    assert not NOT_OVER_REST & (READS | WRITES)
    assert NOT_FOR_READERS < READS
    assert not set(DANGEROUS.split()) & (READS | WRITES)


def prepared(*arguments: Any, read_only: bool = False) -> RedisCommand:
    return prepare(list(arguments), Scripts(), read_only=read_only)


@pytest.mark.parametrize("command", [["wait", "1", "0"], ["WAITAOF", "1", "1", "60000"]], ids=lambda c: c[0])
def test_waiting_commands_wait_a_millisecond_at_most(command: list[str]) -> None:
    assert prepared(*command).packed == pack([*command[:-1], "1"])


@pytest.mark.parametrize(
    ("given", "sent"),
    [("4999", "4999"), ("5000", "5000"), ("5001", "5000"), ("0", "5000"), ("00", "5000"), ("9" * 5000, "5000")],
    ids=lambda text: text[:6],
)
def test_the_wait_that_ends_a_pipeline_is_bounded(given: str, sent: str) -> None:
    command = prepare(["wait", "1", given], Scripts(), read_only=False, longest_wait_ms=LONGEST_WAIT_MS)
    assert command.packed == pack(["wait", "1", sent])
    forever = prepare(["WAITAOF", "1", "1", given], Scripts(), read_only=False, longest_wait_ms=LONGEST_WAIT_MS)
    assert forever.packed == pack(["WAITAOF", "1", "1", "1"]), "it follows a replica's fsync, up to a second later"


def test_commands_are_recognized_in_any_case() -> None:
    assert prepared("sEt", "k", "v") == RedisCommand("sEt", pack(["sEt", "k", "v"]), is_write=True)
    with pytest.raises(RefusedError, match='"BLPOP" is not allowed in REST'):
        prepared("blPop", "k", "0")


@pytest.mark.parametrize("name", sorted(WRITES | NOT_FOR_READERS))
def test_the_read_only_token_permits_no_write_and_no_powerful_read(name: str) -> None:
    subcommand = {"SCRIPT": "LOAD", "FUNCTION": "LIST"}.get(name, "k")
    assert prepared(name, subcommand)
    with pytest.raises(RefusedError, match=f"^NOPERM .* the '{name.lower()}' command or its subcommand$"):
        prepared(name, subcommand, read_only=True)


def test_of_many_scripts_the_newest_are_kept() -> None:
    scripts, known = Scripts(), []
    for number in range(SCRIPTS_KEPT + 1):
        text = f"#!lua flags=allow-key-locking\nreturn {number}"
        known.append(hashlib.sha1(text.encode()).hexdigest())
        assert scripts.adapt("EVAL", ["EVAL", text, "0"]) == (["EVAL", f"\nreturn {number}", "0"], "")
    adapted = [scripts.adapt("EVALSHA", ["EVALSHA", sha, "0"])[0][1] for sha in known]
    unchanged = [before == after for before, after in zip(known, adapted, strict=True)]
    assert unchanged == [True, *[False] * SCRIPTS_KEPT]


def test_the_limit_of_a_command_is_exact() -> None:
    overhead = len(prepared("SET", "k", "x" * 10_000_000).packed) - 10_000_000
    largest = MAX_COMMAND_BYTES - overhead
    assert len(prepared("SET", "k", "x" * largest).packed) == MAX_COMMAND_BYTES
    with pytest.raises(RefusedError) as caught:
        prepared("SET", "k", "x" * (largest + 1))
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("form", "reply", "item"),
    [
        (JSON, b"$-1\r\n", b'{"result":null}'),
        (JSON, b":9223372036854775807\r\n", b'{"result":9223372036854775807}'),
        (JSON, b"+OK\r\n", b'{"result":"OK"}'),
        (JSON, b"$2\r\n\xff\x00\r\n", b'{"result":"\\ufffd\\u0000"}'),
        (JSON, b"*2\r\n:1\r\n-ERR x\r\n", b'{"result":[1,"ERR x"]}'),
        (JSON, b"-ERR x\r\n", b'{"error":"ERR x"}'),
        (BASE64, b"$-1\r\n", b'{"result":null}'),
        (BASE64, b"+OK\r\n", b'{"result":"OK"}'),
        (BASE64, b"$2\r\nOK\r\n", b'{"result":"T0s="}'),
        (BASE64, b"*2\r\n+OK\r\n*2\r\n:1\r\n$1\r\n\xff\r\n", b'{"result":["T0s=",[1,"/w=="]]}'),
        (BASE64, b"-ERR x\r\n", b'{"error":"ERR x"}'),
        (RESP2, b"*2\r\n+OK\r\n$1\r\n\xff\r\n", b"*2\r\n+OK\r\n$1\r\n\xff\r\n"),
        (RESP2, b"-ERR x\r\n", b"-ERR x\r\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ReplyFormat) else repr(value),
)
def test_a_reply_becomes_a_result_or_an_error(form: ReplyFormat, reply: bytes, item: bytes) -> None:
    assert form.item(reply, prepared("GET", "k")) == item


@pytest.mark.parametrize("form", [JSON, BASE64, RESP2], ids=["json", "base64", "resp2"])
def test_an_answer_of_the_gateway_replaces_the_reply(form: ReplyFormat) -> None:
    item = form.item(b"$1\r\nx\r\n", prepared("GET", "k")._replace(answer="mine"))
    assert b"mine" in item or b"bWluZQ==" in item


def test_an_unknown_command_is_answered_with_upstashs_message() -> None:
    error = b"-ERR unknown command 'HEXPIRE', with args beginning with: 'k'\r\n"
    item = json.loads(JSON.item(error, prepared("HEXPIRE", "k")))
    assert item["error"].startswith("ERR Command is not available: 'HEXPIRE'. See https://")


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        (b"/set/foo/bar", ["set", "foo", "bar"]),
        (b"//get/k/", ["get", "k"]),
        (b"/get/a%2Fb", ["get", "a/b"]),
        (b"/set/a+b/%C3%BC%20", ["set", "a+b", "ü "]),
        (b"/set/k/%FF%00", ["set", "k", b"\xff\x00"]),
        (b"/set//v", ["set", "", "v"]),
        (b"/get/100%", ["get", "100%"]),
        (b"/%67et/k", ["get", "k"]),
        (b"/\xff", ["\ufffd"]),
    ],
)
def test_a_path_is_split_first_and_then_decoded(path: bytes, arguments: list[Any]) -> None:
    assert path_arguments(path) == arguments


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        (b"", []),
        (b"EX=100&NX", ["EX", "100", "NX"]),
        (b"_token=t&GET&_token=u", ["GET"]),
        (b"a+b=%26%3D&c==", ["a b", "&=", "c", "="]),
        (b"a=&b=%FF", ["a", "", "b", b"\xff"]),
    ],
)
def test_a_query_is_arguments_in_its_order(query: bytes, arguments: list[Any]) -> None:
    assert query_arguments(query) == arguments


def exchange(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The gateway's response to a POST whose body arrives as these messages."""
    sent: list[dict[str, Any]] = []
    messages = iter(chunks)

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asked = {"type": "http", "method": "POST", "raw_path": b"/", "query_string": b""}
    scope = asked | {"headers": [(b"authorization", b"Bearer t")]}
    upstream = Upstream(ExternalServer("redis://localhost"))  # not connected
    asyncio.run(Gateway(upstream, Tokens("t", "r"))(scope, receive, send))
    return sent


def chunk(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_pieces_is_put_together() -> None:
    _, body = exchange([chunk(b"[", True), chunk(b"", True), chunk(b"]", False)])
    assert json.loads(body["body"]) == {"error": "ERR empty command"}


def test_an_endless_body_is_refused_at_the_limit() -> None:
    part = b" " * (MAX_BODY_BYTES // 4)
    start, body = exchange([chunk(part, True)] * 4 + [chunk(b" ", True)])
    assert start["status"] == 413
    assert (
        json.loads(body["body"])["error"]
        == f"ERR max request size exceeded. Limit: {MAX_BODY_BYTES}, Actual: {MAX_BODY_BYTES + 1}"
    )


@pytest.mark.parametrize("before", [[], [chunk(b"[", True)]], ids=["at once", "in the middle"])
def test_a_client_that_disconnects_within_its_body_gets_no_response(before: list[dict[str, Any]]) -> None:
    assert exchange([*before, {"type": "http.disconnect"}]) == []
