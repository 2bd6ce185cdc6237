"""The transport to a store on this machine: connections are kept, limited, and used by one exchange at a time."""

import asyncio

import httpx
import pytest

from overload_demo.rest.loopback import LoopbackTransport
from tests.support import hostile as h

pytestmark = pytest.mark.anyio
OK = h.answer(200, {"result": 1})


def client(transport: LoopbackTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, timeout=2.0)


async def connections_seen(count: int, transport: LoopbackTransport, *scripts: h.Script) -> tuple[int, list[int]]:
    """The connections that ``count`` concurrent requests used, and the statuses of their responses."""
    seen = set()

    async def watched(writer: asyncio.StreamWriter) -> None:
        seen.add(writer.get_extra_info("peername"))
        await scripts[0](writer)

    async with h.hostile(watched) as server, client(transport) as near:
        answers = await asyncio.gather(*(near.post(server.address.url, json=["PING"]) for _ in range(count)))
    return len(seen), [answer.status_code for answer in answers]


async def test_many_requests_share_the_connections() -> None:
    assert await connections_seen(50, LoopbackTransport(3, 1000), OK) == (3, [200] * 50)


async def test_a_closed_connection_is_replaced() -> None:
    goodbye = h.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    assert await connections_seen(5, LoopbackTransport(1, 1000), goodbye) == (5, [200] * 5)


async def test_an_early_hint_is_not_taken_for_the_response() -> None:
    early = h.raw(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    assert await connections_seen(1, LoopbackTransport(1, 1000), early) == (1, [200])


async def test_a_cancelled_exchange_closes_its_connection_and_frees_its_place() -> None:
    async with h.hostile(h.stay_silent, OK) as server, client(LoopbackTransport(1, 1000)) as near:
        given_up = asyncio.ensure_future(near.post(server.address.url, json=["FIRST"]))
        while not server.requests:
            await asyncio.sleep(0)
        given_up.cancel()
        answer = await near.post(server.address.url, json=["SECOND"])

        assert answer.json() == {"result": 1}
        assert [request.body for request in server.requests] == [["FIRST"], ["SECOND"]]


async def test_a_response_without_a_request_is_not_taken_for_the_next_one() -> None:
    twice = h.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"no"')
    async with h.hostile(twice, OK) as server, client(LoopbackTransport(1, 1000)) as near:
        first = await near.post(server.address.url, json=["PING"])
        second = await near.post(server.address.url, json=["PING"])

        assert (first.json(), second.json()) == ({}, {"result": 1})


async def test_a_body_beyond_the_limit_is_not_read() -> None:
    async with h.hostile(h.endless) as server, client(LoopbackTransport(1, 1_000_000)) as near:
        with pytest.raises(httpx.ReadError, match="too large"):
            await near.post(server.address.url, json=["PING"])
