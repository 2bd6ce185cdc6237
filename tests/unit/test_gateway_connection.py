"""The pipelined connection: each request gets its own replies, and no request waits forever."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overload_demo.errors import Outcome, StoreUnavailableError
from overload_demo.store.gateway.commands import RedisCommand
from overload_demo.store.gateway.replies import BASE64, JSON
from overload_demo.store.gateway.resp import (
    INCOMPLETE,
    MAX_REPLY_BYTES,
    RedisConnection,
    ReplyBudget,
    ReplyCutter,
    ReplyError,
    elements_of,
    pack,
    parsed,
)


class Wire(asyncio.Transport):
    """A transport that records what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = [], False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


def run(scenario: Callable[[RedisConnection, Wire], Awaitable[None]]) -> None:
    async def main() -> None:
        connection, wire = RedisConnection(), Wire()
        connection.connection_made(wire)
        await asyncio.wait_for(scenario(connection, wire), 30)

    asyncio.run(main())


ARRAY = b"*3\r\n:1\r\n$3\r\na\xffb\r\n*-1\r\n"
STREAM = b"+OK\r\n$2\r\n\xff\x00\r\n" + ARRAY + b"-ERR no\r\n"


def test_replies_cut_anywhere_reach_their_requests_in_order() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        for cut in range(len(STREAM)):
            first, second, third = connection.send(b"1", 1), connection.send(b"2", 1), connection.send(b"3", 2)
            connection.data_received(STREAM[:cut])
            connection.data_received(STREAM[cut:])
            assert await first == [b"+OK\r\n"]
            assert await second == [b"$2\r\n\xff\x00\r\n"]
            assert await third == [ARRAY, b"-ERR no\r\n"]
        assert not wire.closed

    run(scenario)


def test_a_command_by_itself_is_answered_with_its_parsed_reply_or_its_error() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        for cut in range(len(STREAM)):
            asked = [asyncio.create_task(connection.ask("x")) for _ in range(4)]
            await asyncio.sleep(0)  # each task sends
            connection.data_received(STREAM[:cut])
            connection.data_received(STREAM[cut:])
            *replies, error = await asyncio.gather(*asked, return_exceptions=True)
            assert replies == ["OK", "\ufffd\x00", [1, "a\ufffdb", None]]
            assert isinstance(error, ReplyError)
            assert str(error) == "ERR no"

    run(scenario)


def test_the_elements_of_an_array_are_the_bytes_that_came() -> None:
    assert elements_of(ARRAY) == [b":1\r\n", b"$3\r\na\xffb\r\n", b"*-1\r\n"]


@given(
    st.recursive(st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(), lambda inner: st.lists(inner, max_size=4)),
    st.data(),
)
def test_any_reply_is_cut_out_of_the_stream_and_parses_to_what_it_was(reply: Any, data: st.DataObject) -> None:
    stream, cutter, budget = wire_form(reply), ReplyCutter(), ReplyBudget()
    cut = data.draw(st.integers(0, len(stream)))
    cutter.feed(stream[:cut])
    assert cut == len(stream) or cutter.gets(budget) is INCOMPLETE
    cutter.feed(stream[cut:] + b"+next\r\n")
    assert parsed(cutter.gets(budget), as_text=False) == reply
    assert cutter.gets(budget) == b"+next\r\n"


def wire_form(reply: Any) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n%b" % (len(reply), b"".join(map(wire_form, reply)))


def test_a_reply_in_pieces_among_others_keeps_its_place() -> None:
    stream = b"+OK\r\n*2\r\n:1\r\n*1\r\n$1\r\nx\r\n:3\r\n"

    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        for cut in range(len(stream)):
            waiting = [connection.send(b"x", 1) for _ in range(4)]  # one more than there are replies
            connection.data_received(stream[:cut])
            connection.data_received(stream[cut:])
            assert [await future for future in waiting[:3]] == [[b"+OK\r\n"], [stream[5:-4]], [b":3\r\n"]]
            connection.data_received(b"+last\r\n")
            assert await waiting[3] == [b"+last\r\n"]

    run(scenario)


@pytest.mark.parametrize("largest", [100, 5_000, 3_000_000])
def test_replies_of_any_size_cut_anywhere_keep_their_order(largest: int) -> None:
    chance = random.Random(largest)
    sizes = [int(largest ** chance.random()) for _ in range(60)]
    stream = b"".join(b"*2\r\n:%d\r\n$%d\r\n%b\r\n" % (n, size, b"x" * size) for n, size in enumerate(sizes))

    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        waiting, at = [connection.send(b"x", 1) for _ in sizes], 0
        while at < len(stream):
            step = chance.randint(1, max(2, len(stream) // 50))
            connection.data_received(stream[at : at + step])
            at += step
        replies = [parsed((await future)[0]) for future in waiting]
        assert [(number, len(text)) for number, text in replies] == list(enumerate(sizes))
        assert not wire.closed

    run(scenario)


def test_replies_beyond_the_budget_of_a_request_are_dropped_and_others_arrive() -> None:
    large = b"$%d\r\n%b\r\n" % (MAX_REPLY_BYTES // 2, b"x" * (MAX_REPLY_BYTES // 2))

    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        first, second = connection.send(b"x", 3), connection.send(b"y", 1)
        for piece in (b"*1\r\n", large, b"*2\r\n:5\r\n", large, large, b"+OK\r\n"):
            for at in range(0, len(piece), 65_536):
                connection.data_received(piece[at : at + 65_536])
        kept, *dropped = await first
        assert len(kept) >= MAX_REPLY_BYTES // 2
        assert all(reply.startswith(b"-ERR max request size exceeded") for reply in dropped)
        assert await second == [b"+OK\r\n"]

    run(scenario)


def test_a_reply_too_deep_for_the_parser_is_an_error_in_its_place() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        deep = b"*1\r\n" * 5000 + b":2\r\n"
        waiting = [connection.send(b"x", 1) for _ in range(3)]
        connection.data_received(b":1\r\n" + deep + b":3\r\n")
        assert [await future for future in waiting] == [[b":1\r\n"], [deep], [b":3\r\n"]]
        assert not wire.closed
        for form in (JSON, BASE64):
            assert form.item(deep, RedisCommand("EVAL", b"", is_write=True)).startswith(b'{"error":')
            assert form.item(b":1\r\n", RedisCommand("GET", b"", is_write=False)) == b'{"result":1}'

    run(scenario)


def test_a_request_is_one_write() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        connection.send(pack(["MULTI"]) + pack(["GET", "k"]) + pack(["EXEC"]), 3)
        connection.send(pack(["PING"]), 1)
        assert len(wire.written) == 2

    run(scenario)


def test_a_lost_connection_fails_all_requests_with_an_unknown_outcome() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        waiting = [connection.send(b"x", 1) for _ in range(3)]
        connection.data_received(b"+OK\r\n")
        connection.connection_lost(None)
        assert await waiting[0] == [b"+OK\r\n"]
        for future in waiting[1:]:
            with pytest.raises(StoreUnavailableError) as caught:
                await future
            assert caught.value.outcome is Outcome.UNKNOWN
        assert connection.closed.done()

    run(scenario)


def test_a_closing_connection_sends_nothing_and_raises() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        wire.closed = True
        with pytest.raises(StoreUnavailableError) as caught:
            connection.send(b"x", 1)
        assert caught.value.outcome is Outcome.NOT_ENQUEUED
        assert wire.written == []

    run(scenario)


def test_a_cancelled_request_does_not_shift_the_replies_of_others() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        given_up, kept = connection.send(b"1", 1), connection.send(b"2", 1)
        given_up.cancel()
        connection.data_received(b":1\r\n:2\r\n")
        assert await kept == [b":2\r\n"]

    run(scenario)


@pytest.mark.parametrize("nonsense", [b"+OK\r\n+unexpected\r\n", b"garbage\r\n", b"$x\r\n"])
def test_an_unexpected_reply_closes_the_connection(nonsense: bytes) -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        connection.send(b"x", 1)
        connection.data_received(nonsense)
        assert wire.closed

    run(scenario)


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert pack(["SET", "a\ud800", "\U0001f600", b"\xff"]) == pack(["SET", "a\ufffd", "\U0001f600", b"\xff"])
