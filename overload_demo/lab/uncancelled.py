"""Steps that an interrupt does not break: it takes effect once they have ended, so nothing half-started is left."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


async def in_thread(function: Callable[..., Value], *arguments: object) -> Value:
    """Run a blocking step in a thread, to its end."""
    return await finish(asyncio.ensure_future(asyncio.to_thread(function, *arguments)))


async def finish(step: "asyncio.Future[Value]") -> Value:
    """Await ``step``; a cancellation is raised on when it has ended."""
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        await asyncio.wait([step])
        raise
