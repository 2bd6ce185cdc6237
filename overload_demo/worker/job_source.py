"""Where a worker's jobs come from: the queue of one shard, and wake-ups.

An idle worker sleeps until a message arrives, instead of polling the store.

A script that makes a job ready while workers may sleep publishes to ``jobs:wake``, once. All sleeping workers then look
for jobs, and one gets the job. No wake-up is lost: the subscription stands before a lease call, and the script that
finds no job marks in the same step that a worker may sleep. A subscription that begins or ends makes the worker look,
because what was published without it did not arrive. Without a subscription the worker polls.

Each sleep without a wake-up is longer than the one before. So a job from a program that publishes nothing, such as an
API of an older version, waits at most a few times as long as the queue had been empty.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from overload_demo.config import Settings
from overload_demo.errors import StoreError, StoreUnavailableError
from overload_demo.queue.consumer import Consumer, Lease, Settlement
from overload_demo.rest.client import Upstash
from overload_demo.worker.guards import Identity

log = logging.getLogger("overload_demo.worker")

LONGEST_SLEEP_S = 180.0  # chosen: 20 lease calls an idle hour; a killed worker counts as alive for this and its lease
SLEEP_GROWTH = 3.0
ECHO_WITHIN_S = 1.0
RETRY_FIRST_S = 0.25


class Backoff:
    """Growing pauses, seconds: ``first_s``, then ``factor`` times the one before, at most ``longest_s``."""

    def __init__(self, first_s: float, longest_s: float, factor: float) -> None:
        self._first_s, self._longest_s, self._factor = min(first_s, longest_s), longest_s, factor
        self.pause_s = self._first_s  # the next one

    def reset(self) -> None:
        """Start again with the first pause."""
        self.pause_s = self._first_s

    def next_s(self) -> float:
        """Return the next pause."""
        pause_s, self.pause_s = self.pause_s, min(self._factor * self.pause_s, self._longest_s)
        return pause_s


class WakeUps:
    """Holds a subscription, and decides whether the worker may sleep. Use it in the event loop of ``upstash``.

    The worker sleeps only on a subscription over which a message has arrived lately. If none has, the next lease call
    publishes its worker id, and that must arrive. This also finds a dead connection that looks open, and a store where
    scripts may not publish. ``poll_s`` is the longest pause between two polls, and the first sleep. ``on_wake`` is
    called for each wake-up, and when a subscription begins or ends. ``sleeps`` begin again when there was a job.
    """

    def __init__(self, upstash: Upstash, channel: str, worker_id: str, poll_s: float, on_wake: Callable[[], object]):
        self._upstash, self._channel, self._worker_id = upstash, channel, worker_id
        self._poll_s, self._on_wake = poll_s, on_wake
        self.sleeps = Backoff(poll_s, LONGEST_SLEEP_S, SLEEP_GROWTH)
        self._is_open = self._is_offered = False
        self._heard_at = -LONGEST_SLEEP_S
        self._heard = asyncio.Event()
        self._limit = asyncio.Timeout(None)
        self._trouble = ""

    async def listen(self) -> NoReturn:
        """Subscribe, again and again, until cancelled."""
        pauses = Backoff(RETRY_FIRST_S, LONGEST_SLEEP_S, 2.0)
        while True:
            since = time.monotonic()
            try:
                async with asyncio.timeout(None) as self._limit:
                    await self._upstash.subscribe(self._channel, self._take)
            except StoreError as error:
                trouble, is_passing = str(error), isinstance(error, StoreUnavailableError)
            except TimeoutError:
                trouble, is_passing = "what a script publishes does not arrive", False
            if self._heard_at > since + self._poll_s:
                pauses.reset()
            if self._heard_at < since and trouble != self._trouble:
                log.warning("no wake-ups, polling for jobs: %s", trouble)
                self._trouble = trouble
            if self._is_open:
                self._is_open = self._is_offered = False
                self._heard.set()
                self._on_wake()
            await asyncio.sleep(min(pauses.next_s(), self._poll_s if is_passing else LONGEST_SLEEP_S))

    def terms(self) -> tuple[float, str]:
        """Return the terms of the next lease call: how long the worker may sleep after it, and what it publishes."""
        self._is_offered = self._is_open
        if not self._is_open:
            return 0.0, ""
        return self.sleeps.pause_s, "" if self._is_proved else self._worker_id

    async def confirm(self) -> float:
        """Return how long the worker may sleep after that call found no job, seconds; 0 means that it must poll.

        Ends a subscription over which nothing arrives.
        """
        if self._is_offered and not self._is_proved:
            self._heard.clear()
            try:
                await asyncio.wait_for(self._heard.wait(), ECHO_WITHIN_S)
            except TimeoutError:
                if self._is_offered and self._is_open:
                    with contextlib.suppress(RuntimeError):  # it is ending already
                        self._limit.reschedule(0.0)
        return self.sleeps.next_s() if self._is_offered and self._is_open and self._is_proved else 0.0

    @property
    def _is_proved(self) -> bool:
        return time.monotonic() - self._heard_at < LONGEST_SLEEP_S / 2

    def _take(self, message: str) -> None:
        if not self._is_open:  # the subscription stands
            self._is_open, self._is_offered, self._heard_at = True, False, -LONGEST_SLEEP_S
        else:
            if self._trouble:
                log.info("wake-ups arrive again")
            self._trouble, self._heard_at = "", time.monotonic()
            self._heard.set()
        if not message:
            self.sleeps.reset()
            self._on_wake()


class Reports(NamedTuple):
    """What a source of jobs calls: ``settled`` with a batch that was settled, and how many of it were fenced.

    ``woken`` means that jobs may be waiting, while ``listen()`` runs. ``late`` gets the jobs of a lease call that was
    not waited for.
    """

    settled: Callable[[Sequence[Settlement], int], object]
    woken: Callable[[], object]
    late: Callable[[Lease], object]


class JobSource(Consumer):
    """The queue of one shard: a consumer that sleeps until it is woken, and reports what it settles."""

    def __init__(self, upstash: Upstash, settings: Settings, identity: Identity, shard: int, reports: Reports) -> None:
        super().__init__(upstash, settings, identity.worker_id, identity.predecessors, shard)
        self._reports = reports
        channel, poll_s = self._protocol.key("wake"), settings.max_poll_interval_s
        self._wake_ups = WakeUps(upstash, channel, identity.worker_id, poll_s, reports.woken)

    async def listen(self) -> None:
        """Receive wake-ups until cancelled."""
        await self._wake_ups.listen()

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """Settle jobs and report it; safe to repeat."""
        fenced = await super().settle(settlements)
        self._reports.settled(settlements, fenced)
        return fenced

    async def fetch(
        self, settlements: Sequence[Settlement], max_jobs: int, *, may_sleep: bool = True
    ) -> Lease | StoreError:
        """Settle, and lease up to ``max_jobs`` jobs, in one exchange; without settlements only lease.

        If there are no jobs and it may, the worker sleeps (see :meth:`sleep_s`). A lease that failed after a successful
        settlement is returned as its error.
        """
        terms = self._wake_ups.terms() if may_sleep else (0.0, "")
        lease: Lease | StoreError
        if settlements:
            fenced, lease = await self.settle_and_lease(settlements, max_jobs, *terms)
            self._reports.settled(settlements, fenced)
        else:
            lease = await self.lease(max_jobs, *terms)
        if isinstance(lease, Lease) and lease.jobs:
            self._wake_ups.sleeps.reset()
        return lease

    async def sleep_s(self, lease: Lease) -> float:
        """Return how long the worker may sleep after a call that leased no job, seconds; 0 means that it must poll."""
        return max(0.0, min(await self._wake_ups.confirm(), lease.first_end_s))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._upstash.aclose()
