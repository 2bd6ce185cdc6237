"""Coalesced writes: in order, before an end, and none to a client that has disconnected."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

from overload_demo.http_server import CoalescingTransport

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@contextlib.contextmanager
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    server_end, client_end = socket.socketpair()
    client_end.settimeout(10.0)
    with server_end, client_end:
        yield server_end, client_end


def run(loop: str, use: Callable[[CoalescingTransport], Awaitable[None]]) -> tuple[bytes, list[dict[str, Any]]]:
    """The bytes that the peer received, and the errors reported to the event loop."""
    errors: list[dict[str, Any]] = []

    async def run_it(server_end: socket.socket) -> None:
        running = asyncio.get_running_loop()
        running.set_exception_handler(lambda _, context: errors.append(context))
        transport, _ = await running.create_connection(asyncio.Protocol, sock=server_end)
        await use(CoalescingTransport(transport, running))
        for _ in range(5):
            await asyncio.sleep(0)
        transport.close()
        await asyncio.sleep(0)

    with socket_pair() as (server_end, client_end), asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(run_it(server_end))
        received = b""
        while chunk := client_end.recv(65_536):
            received += chunk
    return received, errors


@pytest.mark.parametrize("loop", LOOPS)
def test_writes_arrive_in_order_and_before_an_end(loop: str) -> None:
    async def use(transport: CoalescingTransport) -> None:
        transport.write(b"a")
        transport.write(b"b")
        await asyncio.sleep(0)
        transport.write(b"c")
        transport.write_eof()

    assert run(loop, use) == (b"abc", [])


@pytest.mark.parametrize("loop", LOOPS)
def test_a_response_to_a_client_that_disconnects_in_the_same_turn_is_dropped_without_an_error(loop: str) -> None:
    async def use(transport: CoalescingTransport) -> None:
        transport.abort()
        transport.write(b"a")

    assert run(loop, use) == (b"", [])
