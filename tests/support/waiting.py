"""Waiting for something to become true, instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Awaitable, Callable


def wait_until(description: str, predicate: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Return once ``predicate()`` is true; fail with ``description`` when it is not within ``timeout_s`` seconds."""
    give_up_at = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {timeout_s:g} s: {description}")
        time.sleep(0.01)


async def wait_until_async(
    description: str, predicate: Callable[[], Awaitable[object]], timeout_s: float = 10.0
) -> None:
    """The same for a predicate to be awaited."""
    give_up_at = time.monotonic() + timeout_s
    while not await predicate():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {timeout_s:g} s: {description}")
        await asyncio.sleep(0.01)
