"""An instructor's stage with its page, in a separate thread, for tests from outside."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal

from overload_demo.lab.stack import Stack
from overload_demo.live.feed import Feed
from overload_demo.live.page import Page
from overload_demo.live.stage import Sizes, Stage

# jobs of 4 ms, at most 250 a second: a queue grows, and is empty again after some seconds
SIZES = Sizes(requests=600, rate_per_s=400.0, at_once=200, delay_s=0.004, drains_per_s=240.0)


@dataclass(frozen=True)
class Staged:
    """A stage with its page, running in another thread."""

    feed: Feed
    stage: Stage
    stack: Stack
    address: str

    @property
    def address_without_token(self) -> str:
        """The address that students see."""
        return self.address.partition("#")[0]


@contextlib.contextmanager
def on_stage(folder: Path, sizes: Sizes = SIZES, *, is_running: bool = True) -> Iterator[Staged]:
    """A stage of this size on real processes, or on a stack that is not running, with its page."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_staged(folder, sizes, is_running)) as staged,
    ):
        yield staged


@contextlib.asynccontextmanager
async def _staged(folder: Path, sizes: Sizes, is_running: bool) -> AsyncIterator[Staged]:
    wanted: dict[str, Any] = {"placement": "process", "processing_delay_s": sizes.delay_s, "own_key": True}
    stack = await Stack.start(**wanted, runs=folder) if is_running else Stack(wanted | {"nodes": 1}, {}, folder)
    feed = Feed()
    async with stack, Stage(feed, sizes, stack) as stage:
        with Page(feed, controls=stage) as page:
            yield Staged(feed, stage, stack, page.address)
