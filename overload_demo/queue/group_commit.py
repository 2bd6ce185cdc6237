"""Group commit: many callers, few exchanges. What gathers while one exchange is under way goes out in the next.

Callers never touch the transport. They hand in an item and await its own reply; a fixed handful of senders, which are
never cancelled, send whatever has gathered, at once when idle. So the cost of an exchange is shared by as many callers
as are waiting, and a caller that goes away takes nothing with it. A second exchange is opened only when it is worth its
cost: when a fair number is waiting, or when the first is slow.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from overload_demo.errors import Outcome, OverloadDemoError, StoreUnavailableError

Item = TypeVar("Item")
Reply = TypeVar("Reply")

SWEEP_INTERVAL_S = 0.25


class GroupCommit(Generic[Item, Reply]):
    """Gathers items into calls of ``send(items, deadline_s)``, which returns a reply or an error for each.

    With one exchange in flight the next is opened once ``worth_a_call`` items wait: fewer, and its own cost eats what
    overlapping saves; many more, and everybody waits for the store together (measured with 64 and 256 callers).
    Bounds: ``senders`` exchanges in flight, ``max_items`` and ``max_bytes`` (by ``size_of``) in one call,
    ``max_waiting`` items and ``max_waiting_bytes`` not yet sent; beyond that :meth:`submit` raises at once.
    An item is answered within ``deadline_s``; if it was not even sent by then, with StoreUnavailableError and outcome
    ``not_enqueued``.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item], float], Awaitable[Sequence[Reply | OverloadDemoError]]],
        *,
        size_of: Callable[[Item], int] = lambda _: 0,
        senders: int = 2,
        worth_a_call: int = 32,
        max_items: int = 256,
        max_bytes: int = 1_048_576,
        max_waiting: int = 25_000,
        max_waiting_bytes: int = 67_108_864,
        deadline_s: float = 5.0,
    ) -> None:
        self._send, self._size_of = send, size_of
        self._worth_a_call = min(worth_a_call, max_items)
        self._max_items, self._max_bytes, self._deadline_s = max_items, max_bytes, deadline_s
        self._max_waiting, self._max_waiting_bytes = max_waiting, max_waiting_bytes
        self._waiting: deque[tuple[Item, asyncio.Future[Reply], int, float]] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Semaphore(0)
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(self._sender()) for _ in range(senders)]
        self._sweeper = asyncio.create_task(self._sweep())
        self._idle_senders = 0

    async def submit(self, item: Item) -> Reply:
        """Hand in one item and wait for its reply. Raises what ``send`` returned or raised for it."""
        size = self._size_of(item)
        if self._closing:
            raise StoreUnavailableError("shutting down")
        if len(self._waiting) >= self._max_waiting or self._waiting_bytes + size > self._max_waiting_bytes:
            raise StoreUnavailableError("too many requests are waiting for the store")
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting.append((item, future, size, time.monotonic()))
        self._waiting_bytes += size
        if self._idle_senders == len(self._tasks) or len(self._waiting) >= self._worth_a_call:
            self._wake_a_sender()
        return await future

    async def aclose(self) -> None:
        """Send what is waiting, then end the senders."""
        self._closing = True
        for _ in self._tasks:
            self._arrived.release()
        await asyncio.gather(*self._tasks)
        self._sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeper

    def _wake_a_sender(self) -> None:
        if self._idle_senders:
            self._idle_senders -= 1
            self._arrived.release()

    async def _sender(self) -> None:
        while True:
            while not self._waiting:
                if self._closing:
                    return
                self._idle_senders += 1
                await self._arrived.acquire()
            batch = self._take()
            remaining_s = self._deadline_s - (time.monotonic() - batch[0][3])
            try:
                replies = await self._send([item for item, *_ in batch], remaining_s)
            except OverloadDemoError as error:
                replies = [error] * len(batch)
            except Exception as error:
                reason = f"unexpected {type(error).__name__} while talking to the store"
                replies = [StoreUnavailableError(reason, Outcome.UNKNOWN)] * len(batch)
            for (_, future, _, _), reply in zip(batch, replies, strict=True):
                _answer(future, reply)

    def _take(self) -> list[tuple[Item, asyncio.Future[Reply], int, float]]:
        """The oldest waiting items, up to the bounds of one call; always at least one."""
        batch: list[tuple[Item, asyncio.Future[Reply], int, float]] = []
        total = 0
        while self._waiting and len(batch) < self._max_items:
            size = self._waiting[0][2]
            if batch and total + size > self._max_bytes:
                break
            batch.append(self._waiting.popleft())
            total += size
        self._waiting_bytes -= total
        return batch

    async def _sweep(self) -> None:
        """Help what has waited while senders were busy with a store that does not answer; fail it past the deadline."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            if self._waiting and self._waiting[0][3] < time.monotonic() - SWEEP_INTERVAL_S:
                self._wake_a_sender()
            too_old = time.monotonic() - self._deadline_s
            while self._waiting and self._waiting[0][3] < too_old:
                _, future, size, _ = self._waiting.popleft()
                self._waiting_bytes -= size
                _answer(future, StoreUnavailableError("the store did not take the request in time"))


def _answer(future: "asyncio.Future[Reply]", reply: "Reply | OverloadDemoError") -> None:
    if future.done():  # the caller went away; what was committed stays committed
        return
    if isinstance(reply, OverloadDemoError):
        future.set_exception(reply)
    else:
        future.set_result(reply)
