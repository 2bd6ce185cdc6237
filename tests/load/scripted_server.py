"""A small real HTTP server in a thread, scripted by a test: slow, frozen, resetting, truncating, silent."""

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from overload_demo.lab.simulated_cloud import stop_accepting

ACCEPTED = b'{"status":"accepted","job_id":"job_%024x","message":"queued"}'


@dataclass
class Request:
    """One received request: its number (from 0, of those with a body), body and head, and the response's stream."""

    number: int
    body: bytes
    writer: asyncio.StreamWriter
    head: bytes = b""


Script = Callable[[Request], Awaitable[None]]


@dataclass
class ScriptedServer:
    """The server's URL, and the bodies it has received with their heads."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)

    @property
    def values(self) -> list[int]:
        return [json.loads(body)["value"] for body in self.bodies]


def answer(
    request: Request,
    status: int = 202,
    body: bytes | None = None,
    declared_length: int | None = None,
    headers: str = "",
) -> None:
    body = ACCEPTED % request.number if body is None else body
    length = len(body) if declared_length is None else declared_length
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"
    request.writer.write(head.encode() + body)


async def accept(request: Request) -> None:
    answer(request)


async def refuse_with_503(request: Request) -> None:
    answer(request, status=503, body=b"{}")


async def accept_without_id(request: Request) -> None:
    answer(request, body=b"{}")


async def truncate(request: Request) -> None:
    answer(request, declared_length=1000)
    request.writer.close()


async def hang_up(request: Request) -> None:
    request.writer.close()


async def reset(request: Request) -> None:
    connection = request.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.writer.transport.abort()


async def stay_silent(request: Request) -> None:
    await asyncio.sleep(3600)  # a timer is referenced by the loop; an event that nothing refers to is collected


def accept_after(delay_s: float) -> Script:
    async def script(request: Request) -> None:
        await asyncio.sleep(delay_s)
        answer(request)

    return script


def freeze(*, at_request: int, for_s: float, delay_s: float) -> Script:
    """Answer after ``delay_s``, but from request ``at_request`` on answer nothing for ``for_s`` seconds."""
    thaw_at = 0.0

    async def script(request: Request) -> None:
        nonlocal thaw_at
        if request.number == at_request:
            thaw_at = time.monotonic() + for_s
        await asyncio.sleep(max(thaw_at - time.monotonic(), 0.0) + delay_s)
        answer(request)

    return script


@contextlib.contextmanager
def scripted_server(script: Script, host: str = "127.0.0.1") -> Iterator[ScriptedServer]:
    seen, ready = ScriptedServer(), threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = OSError, asyncio.IncompleteReadError, asyncio.CancelledError  # the last one: asyncio would log it
        with contextlib.closing(writer), contextlib.suppress(*ends):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                _, declared, after = head.lower().partition(b"content-length:")
                body = await reader.readexactly(int(after.split(b"\r\n")[0]) if declared else 0)
                if body:
                    seen.bodies.append(body)
                    seen.heads.append(head)
                await script(Request(len(seen.bodies) - 1, body, writer, head))

    async def serve() -> None:
        server = await asyncio.start_server(converse, host, 0, backlog=1024)
        shown = f"[{host}]" if ":" in host else host
        seen.url = f"http://{shown}:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        await stop_accepting(server)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports are released in the next iteration

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield seen
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """Yield a URL without a listener; the port stays reserved, so that no other process listens there."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@contextlib.contextmanager
def full_accept_queue(host: str = "127.0.0.1") -> Iterator[str]:
    """Yield a URL whose listener never accepts and whose accept queue is full: the kernel drops further attempts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://{host}:{listener.getsockname()[1]}"
