"""Group commit: many callers share few store calls. Items that gather during one call leave together in the next.

A caller hands in an item and awaits the reply to it, or is called with it. What has gathered is sent by a task of its
own, which is never cancelled; the first item is sent at once. The cost of a call is therefore shared by all waiting
callers, and a caller that disconnects cancels nothing.

Reading tour 4 of 13; next: overload_demo/queue/producer.py. Look for the conditions that start a call. Question: what
happens to an item whose caller disconnects?
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from overload_demo.errors import Outcome, OverloadDemoError, StoreUnavailableError

Item = TypeVar("Item")
Reply = TypeVar("Reply")
Answer = Callable[[Reply | OverloadDemoError], object]
_Waiting = tuple[Item, Answer[Reply], int, float, float]  # item, caller, bytes, since, deadline

log = logging.getLogger(__name__)

MAX_CALL_BYTES = 1_048_576  # as sent, after escaping: a tenth of what Upstash accepts in one request
MAX_WAITING, MAX_WAITING_BYTES = 25_000, 67_108_864
SWEEP_INTERVAL_S = 0.25
LEAST_LEFT_S = 0.25  # of an item when it is sent: with less, the others in its call would fail with it


class GroupCommit(Generic[Item, Reply]):
    """Gathers items into calls of ``send(items, deadline_s)``, which returns a reply or an error for each item.

    It may return those of the first items only, at least one; the other items lead the next call.
    During a call, the next one starts once a share waits, or an item has waited for 0.25 s. A share is what waits or is
    under way, divided by ``calls_at_once``, but at least ``worth`` items. So the calls of steady callers are equally
    large, and one is prepared while the store works on another. With ``worth=max_items`` they seldom overlap.
    Limits: ``calls_at_once`` calls in flight; ``max_items`` and ``MAX_CALL_BYTES`` (by ``size_of``) in a call;
    ``MAX_WAITING`` items and ``MAX_WAITING_BYTES`` not sent yet, beyond which :meth:`submit` raises at once.
    ``send`` gets the least time that one of its items has left. An item with less time left than two recent calls took
    fails with outcome ``not_enqueued``: its call would be cut off, and the outcome of all in it unknown. With
    ``unsent_s`` so does one that has waited for so long while no call has succeeded.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item], float], Awaitable[Sequence[Reply | OverloadDemoError]]],
        *,
        size_of: Callable[[Item], int] = lambda _: 0,
        calls_at_once: int = 2,
        max_items: int = 256,
        worth: int = 1,
        deadline_s: float = 5.0,
        unsent_s: float | None = None,
    ) -> None:
        self._send, self._size_of, self._max_items, self._deadline_s = send, size_of, max_items, deadline_s
        self._unsent_s, self._succeeded_at = deadline_s if unsent_s is None else unsent_s, 0.0
        kept = calls_at_once + 1  # one more than a pause of the store lengthens
        self._recent_calls_s = deque([0.0] * kept, kept)
        self._waiting: deque[_Waiting[Item, Reply]] = deque()
        self._waiting_bytes = self._under_way = 0
        self._calls_at_once, self._calls, self._tasks = calls_at_once, 0, set[asyncio.Task[None]]()
        self._worth = self._share = min(worth, max_items)  # the share as of the last reply
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._sweeper = asyncio.create_task(self._sweep())

    async def submit(self, item: Item) -> Reply:
        """Hand in one item and wait for its reply. Raises what ``send`` returned or raised for it."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.hand_in(item, partial(resolve, future))
        return await future

    def hand_in(self, item: Item, answer: "Answer[Reply]", give_up_at: float | None = None) -> None:
        """Hand in one item; ``answer`` is called once, later, with its reply or its error.

        ``give_up_at`` is its deadline by the monotonic clock, if it has waited elsewhere before.
        """
        size = self._size_of(item)
        if self._closing:
            self._loop.call_soon(answer, StoreUnavailableError("shutting down"))
            return
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
            self._loop.call_soon(answer, StoreUnavailableError("too many requests are waiting for the store"))
            return
        now = time.monotonic()
        self._waiting.append((item, answer, size, now, now + self._deadline_s if give_up_at is None else give_up_at))
        self._waiting_bytes += size
        self._start_a_call()

    async def aclose(self) -> None:
        """Send what is waiting, and wait for the replies."""
        self._closing = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._sweeper.cancel()
        await asyncio.wait({self._sweeper})

    def _start_a_call(self, *, is_slow: bool = False) -> None:
        """Start a call if there is a share for it, if the others are slow, or if there are no others."""
        is_due = len(self._waiting) >= self._share or is_slow or not self._calls
        if self._waiting and is_due and self._calls < self._calls_at_once:
            self._calls += 1
            task = self._loop.create_task(self._call())  # it takes what waits when it runs
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call(self) -> None:
        batch = self._take_batch()
        self._start_a_call()
        replies = await self._replies(batch) if batch else []
        self._share = self._present_share()
        self._calls -= 1
        rest = batch[len(replies) :]
        self._waiting.extendleft(reversed(rest))
        self._waiting_bytes += sum(size for _, _, size, *_ in rest)
        if len(self._waiting) >= self._share / 2:
            self._start_a_call()
            await asyncio.sleep(0)  # it is sent before these callers are answered, so that the store works meanwhile
        for (_, answer, *_), reply in zip(batch, replies, strict=False):
            try:
                answer(reply)
            except Exception:
                log.exception("bug in a caller of the group commit; the others are answered")
        self._under_way -= len(batch)
        self._start_a_call()

    async def _replies(self, batch: "list[_Waiting[Item, Reply]]") -> Sequence[Reply | OverloadDemoError]:
        since = time.monotonic()
        remaining_s = min(give_up_at for *_, give_up_at in batch) - since
        try:
            replies = await self._send([item for item, *_ in batch], remaining_s)
            self._succeeded_at = time.monotonic()
        except Exception as error:
            replies = [as_known_error(error)] * len(batch)
        self._recent_calls_s.append(time.monotonic() - since)
        return replies

    def _present_share(self) -> int:
        everything = len(self._waiting) + self._under_way
        return min(self._max_items, max(self._worth, math.ceil(everything / self._calls_at_once)))

    def _take_batch(self) -> "list[_Waiting[Item, Reply]]":
        """The oldest waiting items within the limits of one call; none if all were handed in too late."""
        batch: list[_Waiting[Item, Reply]] = []
        most, total = max(self._share, self._present_share()), 0
        least_left_s = min(self._deadline_s / 2, max(LEAST_LEFT_S, 2 * min(self._recent_calls_s)))
        while self._waiting and len(batch) < most:
            _, _, size, _, give_up_at = self._waiting[0]
            if batch and total + size > MAX_CALL_BYTES:
                break
            if give_up_at < time.monotonic() + least_left_s:
                self._fail_oldest()
                continue
            batch.append(self._waiting.popleft())
            total += size
        self._waiting_bytes -= total
        self._under_way += len(batch)
        return batch

    def _fail_oldest(self) -> None:
        _, answer, size, *_ = self._waiting.popleft()
        self._waiting_bytes -= size
        self._loop.call_soon(answer, StoreUnavailableError("the store did not take the request in time"))

    async def _sweep(self) -> None:
        """Start another call while one is slow; fail items that no call took in time."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            if self._waiting and self._waiting[0][3] < time.monotonic() - SWEEP_INTERVAL_S:
                self._start_a_call(is_slow=True)
            now = time.monotonic()
            # If calls succeed the store is only busy, and an item waits for its turn.
            is_stuck = now - self._succeeded_at > self._unsent_s
            while self._waiting and self._waiting[0][3] < now - (self._unsent_s if is_stuck else self._deadline_s):
                self._fail_oldest()


class SharedCall(Generic[Reply]):
    """Gives one reply of ``call(deadline_s)`` to all concurrent callers; only one call runs at a time.

    A reply is never older than its request: callers that arrive during a call share the next one. A caller that is
    cancelled cancels nothing.
    """

    def __init__(self, call: Callable[[float], Awaitable[Reply]], deadline_s: float) -> None:
        self._call, self._deadline_s = call, deadline_s
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[Reply] | None = None

    async def reply(self) -> Reply:
        """Wait for the reply. Raises what ``call`` raised."""
        if self._next is None:
            self._next = asyncio.create_task(self._run(time.monotonic() + self._deadline_s))
        return await asyncio.shield(self._next)

    async def aclose(self) -> None:
        """Wait for the calls in flight."""
        if self._next is not None:
            await asyncio.wait({self._next})
        async with self._turn:
            pass

    async def _run(self, give_up_at: float) -> Reply:
        async with self._turn:
            self._next = None
            if (remaining_s := give_up_at - time.monotonic()) <= 0:
                raise StoreUnavailableError("the store did not take the request in time")
            try:
                return await self._call(remaining_s)
            except Exception as error:
                raise as_known_error(error) from None


def as_known_error(error: Exception) -> OverloadDemoError:
    """Return an error of this package as it is; a bug becomes a store error with outcome ``unknown``."""
    if isinstance(error, OverloadDemoError):
        return error
    return StoreUnavailableError(f"unexpected {type(error).__name__} during a store call", Outcome.UNKNOWN)


def resolve(future: "asyncio.Future[Reply]", reply: "Reply | OverloadDemoError") -> None:
    """Give a reply or an error to the future of its caller."""
    if future.done():  # the caller disconnected; its item is committed all the same
        return
    if isinstance(reply, OverloadDemoError):
        future.set_exception(reply)
    else:
        future.set_result(reply)
