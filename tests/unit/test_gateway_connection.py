"""The pipelined connection: each request gets its own replies, and nobody waits for ever."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from overload_demo.errors import Outcome, StoreUnavailableError
from overload_demo.store.resp import RedisConnection, RedisConnectionLostError, ReplyError, pack


class Wire(asyncio.Transport):
    """The other end: remembers what was written."""

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
        await asyncio.wait_for(scenario(connection, wire), 5)

    asyncio.run(main())


def test_replies_cut_anywhere_reach_their_requests_in_order() -> None:
    stream = b"+OK\r\n$2\r\n\xff\x00\r\n*2\r\n:1\r\n$3\r\na\xffb\r\n-ERR no\r\n"

    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        for cut in range(len(stream)):
            first, second = connection.send(b"1", 1), connection.send(b"2", 1, as_bytes=True)
            third = connection.send(b"3", 2)
            connection.data_received(stream[:cut])
            connection.data_received(stream[cut:])
            assert await first == ["OK"]
            assert await second == [b"\xff\x00"]
            array, error = await third
            assert array == [1, "a\ufffdb"]
            assert isinstance(error, ReplyError)
            assert str(error) == "ERR no"

    run(scenario)


def test_a_request_is_one_write() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        connection.send(pack(["MULTI"]) + pack(["GET", "k"]) + pack(["EXEC"]), 3)
        connection.send(pack(["PING"]), 1)
        assert len(wire.written) == 2

    run(scenario)


def test_a_lost_connection_fails_all_who_wait_with_an_unknown_outcome() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        waiting = [connection.send(b"x", 1) for _ in range(3)]
        connection.data_received(b"+OK\r\n")
        connection.connection_lost(None)
        assert await waiting[0] == ["OK"]
        for future in waiting[1:]:
            with pytest.raises(RedisConnectionLostError) as caught:
                await future
            assert caught.value.outcome is Outcome.UNKNOWN
        assert connection.closed.done()

    run(scenario)


def test_a_closing_connection_sends_nothing_and_says_so() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        wire.closed = True
        with pytest.raises(StoreUnavailableError) as caught:
            connection.send(b"x", 1)
        assert caught.value.outcome is Outcome.NOT_ENQUEUED
        assert wire.written == []

    run(scenario)


def test_a_request_given_up_does_not_shift_the_replies_of_others() -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        given_up, kept = connection.send(b"1", 1), connection.send(b"2", 1)
        given_up.cancel()
        connection.data_received(b":1\r\n:2\r\n")
        assert await kept == [2]

    run(scenario)


@pytest.mark.parametrize("nonsense", [b"+OK\r\n+nobody asked\r\n", b"garbage\r\n"])
def test_what_breaks_the_order_of_replies_ends_the_connection(nonsense: bytes) -> None:
    async def scenario(connection: RedisConnection, wire: Wire) -> None:
        connection.send(b"x", 1)
        connection.data_received(nonsense)
        assert wire.closed

    run(scenario)


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert pack(["SET", "a\ud800", "\U0001f600"]) == pack(["SET", "a\ufffd", "\U0001f600"])
