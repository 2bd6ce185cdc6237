"""Wait for a condition instead of a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable


def wait_until(description: str, predicate: Callable[[], object], timeout_s: float = 25.0) -> None:
    """Return once ``predicate()`` is true; fail with ``description`` when it is not within ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {description}")
        time.sleep(0.01)


async def wait_until_async(
    description: str, predicate: Callable[[], Awaitable[object]], timeout_s: float = 25.0
) -> None:
    """Like :func:`wait_until`, for an async predicate."""
    deadline = time.monotonic() + timeout_s
    while not await predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {description}")
        await asyncio.sleep(0.01)
