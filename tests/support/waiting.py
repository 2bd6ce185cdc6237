"""Wait for a condition instead of a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable

LONGEST_PAUSE_S = 0.05


def _pause_s(began: float) -> float:
    """The time to the next look, a twentieth of the wait so far: a look may cost several processes some ms."""
    return min(0.01 + (time.monotonic() - began) / 20, LONGEST_PAUSE_S)


def wait_until(description: str, predicate: Callable[[], object], timeout_s: float = 25.0) -> None:
    """Return once ``predicate()`` is true; fail with ``description`` when it is not within ``timeout_s`` seconds."""
    began = time.monotonic()
    while not predicate():
        if time.monotonic() > began + timeout_s:
            raise AssertionError(f"not within {timeout_s:g} s: {description}")
        time.sleep(_pause_s(began))


async def wait_until_async(
    description: str, predicate: Callable[[], Awaitable[object]], timeout_s: float = 25.0
) -> None:
    """Like :func:`wait_until`, for an async predicate."""
    began = time.monotonic()
    while not await predicate():
        if time.monotonic() > began + timeout_s:
            raise AssertionError(f"not within {timeout_s:g} s: {description}")
        await asyncio.sleep(_pause_s(began))
