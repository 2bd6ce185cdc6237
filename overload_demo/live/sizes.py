"""How large an act has to be to last as long as a class looks on: sized by time on this machine, not by count."""

import asyncio
import time
from dataclasses import dataclass
from typing import Self

from overload_demo.errors import OverloadDemoError
from overload_demo.lab.json_connection import JsonConnection
from overload_demo.lab.stack import Stack
from overload_demo.load import calibrate

DELAY_S = 0.001  # the work of one job to measure with, and on a machine that accepts several times what it drains
STEEPNESS = 3.0  # arrivals are at least so many times the drain rate, or no queue and no collapse would be seen
FIRES_S, EMPTY_WITHIN_S = 10.0, 45.0
AT_ONCE_AT_MOST = 20_000  # sockets; a machine with few descriptors spreads them over load processes
RATE_SHARE = 0.4  # of what the API takes at its best: a browser that draws takes its share of the machine too
DRAIN_LOOK_S = 3.0


@dataclass(frozen=True)
class Sizes:
    """The loads of the acts. ``peak`` (jobs) and ``empty_s`` are what theory expects of the spike with a queue."""

    requests: int
    rate_per_s: float
    at_once: int
    delay_s: float
    drains_per_s: float

    @classmethod
    def of(cls, accepts_per_s: float, drains_per_s: float) -> Self:
        """Sizes for a machine that accepts so many jobs a second, and drains so many of :data:`DELAY_S` each.

        Where it drains nearly as fast as it accepts, jobs get longer: 1 ÷ drain rate = delay + the rest of a job.
        """
        stands_per_s = RATE_SHARE * accepts_per_s
        drains = min(drains_per_s, stands_per_s / STEEPNESS)
        requests = max(100, round(0.9 * drains * EMPTY_WITHIN_S, -2))
        return cls(
            requests=int(requests),
            rate_per_s=float(max(10.0, round(min(stands_per_s, requests / FIRES_S), -1))),
            at_once=int(min(requests, AT_ONCE_AT_MOST)),
            delay_s=round(DELAY_S + 1 / drains - 1 / drains_per_s, 5),
            drains_per_s=round(drains, 1),
        )

    @property
    def in_words(self) -> str:
        """What a class has to know to predict."""
        return f"{self.requests:,} requests at {self.rate_per_s:,.0f}/s; a job takes {self.delay_s * 1000:g} ms"

    @property
    def fires_s(self) -> float:
        """How long the spike is fired, seconds."""
        return self.requests / self.rate_per_s

    @property
    def peak(self) -> float:
        """The queue at its highest by theory: arrivals less departures while the spike lasts."""
        return max(0.0, (self.rate_per_s - self.drains_per_s) * self.fires_s)

    @property
    def empty_s(self) -> float:
        """When the queue is empty by theory, seconds from the first request."""
        return max(self.fires_s, self.requests / self.drains_per_s)


async def measure(stack: Stack) -> Sizes:
    """Measure what the API takes and what the worker drains, in about seven seconds; leaves ``stack`` used.

    The drain rate is looked at while the backlog of the calibration is worked off and nobody sends. Raises
    :class:`OverloadDemoError` when nothing is accepted or drained.
    """
    accepts_per_s = await calibrate(stack.url, api_key=stack.api_key)
    connection = JsonConnection(stack.url, 10.0, stack.headers)
    try:
        before, began = await asyncio.to_thread(connection.get, "/queue/stats"), time.monotonic()
        await asyncio.sleep(DRAIN_LOOK_S)
        after, ended = await asyncio.to_thread(connection.get, "/queue/stats"), time.monotonic()
    finally:
        connection.close()
    drains_per_s = (after["done"] - before["done"]) / (ended - began)
    if not drains_per_s > 0:
        raise OverloadDemoError("the worker has drained nothing while it was looked at, so no act can be sized")
    return Sizes.of(accepts_per_s, drains_per_s)
