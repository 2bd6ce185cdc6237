"""How the gateway reads request bodies and writes results, without a server."""

import asyncio
import json
from typing import Any

import pytest

from overload_demo.store.commands import NOT_OVER_REST, READS, WRITES, CommandRefusedError, admit
from overload_demo.store.gateway import Gateway
from overload_demo.store.resp import ReplyError
from overload_demo.store.rest import MAX_BODY_BYTES, MAX_COMMAND_BYTES, prepare, result_item

DANGEROUS = """ACL BGREWRITEAOF BGSAVE CLUSTER CONFIG DEBUG FAILOVER FLUSHALL LATENCY MIGRATE MODULE PSYNC REPLICAOF
SAVE RESTORE-ASKING SHUTDOWN SLAVEOF SLOWLOG SWAPDB SYNC REPLCONF ASKING READONLY PFDEBUG"""


def test_no_dangerous_command_is_on_the_list() -> None:
    assert not READS & WRITES
    assert not NOT_OVER_REST & (READS | WRITES)
    assert not set(DANGEROUS.split()) & (READS | WRITES)


@pytest.mark.parametrize("command", [["wait", "1", "0"], ["WAITAOF", "1", "1", "60000"]], ids=lambda c: c[0])
def test_waiting_commands_wait_a_millisecond_at_most(command: list[str]) -> None:
    sent, _ = admit(command)
    assert sent == [*command[:-1], "1"]


def test_commands_are_recognized_in_any_case() -> None:
    assert admit(["sEt", "k", "v"]) == (["sEt", "k", "v"], True)
    with pytest.raises(CommandRefusedError, match='"BLPOP" is not allowed in REST'):
        admit(["blPop", "k", "0"])


def test_the_limit_of_a_command_is_exact() -> None:
    overhead = len(prepare(["SET", "k", "x" * 10_000_000]).packed) - 10_000_000
    largest = MAX_COMMAND_BYTES - overhead
    assert len(prepare(["SET", "k", "x" * largest]).packed) == MAX_COMMAND_BYTES
    with pytest.raises(CommandRefusedError) as caught:
        prepare(["SET", "k", "x" * (largest + 1)])
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("reply", "item"),
    [
        (None, {"result": None}),
        (2**63 - 1, {"result": 2**63 - 1}),
        ("é\n", {"result": "é\n"}),
        (b"OK", {"result": "OK"}),
        (b"\xff", {"result": "/w=="}),
        ([b"OK", [1, None]], {"result": ["T0s=", [1, None]]}),
        ([1, ReplyError("ERR x")], {"result": [1, "ERR x"]}),
        (ReplyError("ERR x"), {"error": "ERR x"}),
    ],
    ids=repr,
)
def test_a_reply_becomes_a_result_or_an_error(reply: Any, item: dict[str, Any]) -> None:
    assert json.loads(result_item(reply, "GET")) == item


def test_a_command_the_server_does_not_know_is_told_in_the_vendors_words() -> None:
    item = json.loads(
        result_item(ReplyError("ERR unknown command 'HEXPIRE', with args beginning with: 'k'"), "HEXPIRE")
    )
    assert item["error"].startswith("ERR Command is not available: 'HEXPIRE'. See https://")


def ask(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the gateway sends for a POST whose body comes as these messages."""
    sent: list[dict[str, Any]] = []
    messages = iter(chunks)

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"authorization", b"Bearer t")]}
    asyncio.run(Gateway(None, "t")(scope, receive, send))  # type: ignore[arg-type]
    return sent


def chunk(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_pieces_is_put_together() -> None:
    _, body = ask([chunk(b"[", True), chunk(b"", True), chunk(b"]", False)])
    assert json.loads(body["body"]) == {"error": "ERR empty command"}


def test_a_body_that_never_ends_is_cut_at_the_limit() -> None:
    part = b" " * (MAX_BODY_BYTES // 4)
    start, body = ask([chunk(part, True)] * 4 + [chunk(b" ", True)])
    assert start["status"] == 413
    assert (
        json.loads(body["body"])["error"]
        == f"ERR max request size exceeded. Limit: {MAX_BODY_BYTES}, Actual: {MAX_BODY_BYTES + 1}"
    )


@pytest.mark.parametrize("before", [[], [chunk(b"[", True)]], ids=["at once", "in the middle"])
def test_a_client_that_leaves_before_its_body_ends_is_left_alone(before: list[dict[str, Any]]) -> None:
    assert ask([*before, {"type": "http.disconnect"}]) == []
