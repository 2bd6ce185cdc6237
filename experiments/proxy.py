"""A server on loopback, in a thread of its own: what stands in the way between a client and what it means to reach."""

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Self

OPEN_WITHIN_S = END_WITHIN_S = 10.0


class Proxy(ABC):
    """Takes connections on ``port`` while it serves; each is :meth:`handle`'s until it or its peer ends."""

    def __init__(self) -> None:
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @abstractmethod
    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. A broken line is an end like any other."""

    async def beside(self) -> None:  # noqa: B027 — most have nothing to do there
        """What runs beside all connections, and ends with them."""

    @contextlib.contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve for the length of the block."""
        is_open, loop, may_end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
        thread = threading.Thread(target=loop.run_until_complete, args=(self._run(is_open, may_end),), name="proxy")
        thread.start()
        try:
            if not is_open.wait(OPEN_WITHIN_S):
                raise TimeoutError(f"the proxy does not start within {OPEN_WITHIN_S:g} s")
            yield self
        finally:
            loop.call_soon_threadsafe(may_end.set)
            thread.join(END_WITHIN_S)
            loop.close()

    async def _run(self, is_open: threading.Event, may_end: asyncio.Event) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._tasks.add(asyncio.create_task(self.beside()))
        is_open.set()
        await may_end.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ExceptionGroup):
            await self.handle(reader, writer)
        writer.close()
        self._tasks.discard(task)
