"""The evening before: play every act on this machine, and keep the sizes and numbers the class will see."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from overload_demo.lab.stack import Stack
from overload_demo.live.feed import Feed
from overload_demo.live.page import Prediction
from overload_demo.live.sizes import DELAY_S, Sizes, measure
from overload_demo.live.stage import TITLES, Stage
from overload_demo.load.limits import descriptor_limit
from overload_demo.load.summary import Environment

FILE = "rehearsal.json"


class ActSeen(BaseModel):
    """One act as it was rehearsed; ``lasted_s`` from the order to the result."""

    model_config = ConfigDict(frozen=True)

    name: str
    result: str
    lasted_s: float


class Rehearsal(BaseModel):
    """What was rehearsed, and where: it holds for a machine like that one."""

    model_config = ConfigDict(frozen=True)

    environment: Environment
    sizes: Sizes
    acts: list[ActSeen]


@asynccontextmanager
async def open_stage(feed: Feed, runs: Path, sizes: Sizes | None) -> AsyncIterator[Stage]:
    """A stage with a stack of its own, in processes, for the length of the block; measures the machine without sizes.

    Raises what :meth:`Stack.start` and :func:`measure` raise.
    """
    async with AsyncExitStack() as cleanup:
        if sizes is None:
            sizes = await measure(await cleanup.enter_async_context(await _stack(DELAY_S, runs)))
        stack = await cleanup.enter_async_context(await _stack(sizes.delay_s, runs))
        yield await cleanup.enter_async_context(Stage(feed, sizes, stack))


async def _stack(delay_s: float, runs: Path) -> Stack:
    """The running stack, if its jobs take that long, or another in its place."""
    return await Stack.start(placement="process", processing_delay_s=delay_s, runs=runs, name="stage")


def last(runs: Path) -> Sizes | None:
    """The sizes of the last rehearsal on a machine like this one; None where there is none."""
    try:
        found = Rehearsal.model_validate_json((runs / FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return found.sizes if found.environment.is_like(Environment.here(descriptor_limit())) else None


async def rehearse(runs: Path, say: Callable[[str], None]) -> Table:
    """Measure this machine, play each act as the class will see it, and keep sizes and numbers in ``runs``.

    ``say`` is told what happens next. Takes about three minutes. Returns the numbers as a table.
    """
    say("measuring what this machine takes")
    feed, acts = Feed(), []
    async with open_stage(feed, runs, None) as stage:
        for order, title in TITLES.items():
            say(title)
            acts.append(await _play(stage, feed, order))
    found = Rehearsal(environment=Environment.here(descriptor_limit()), sizes=stage.sizes, acts=acts)
    (runs / FILE).write_text(found.model_dump_json(indent=1) + "\n")
    return table(found)


async def _play(stage: Stage, feed: Feed, order: str) -> ActSeen:
    began = time.monotonic()
    await stage.act(order, Prediction())
    await stage.wait()
    return ActSeen(name=TITLES[order], result=feed.state["result"], lasted_s=round(time.monotonic() - began, 1))


def table(found: Rehearsal) -> Table:
    """What the class will see, and what the instructor may expect of its guesses."""
    sizes = found.sizes
    shown = Table(
        title=f"{sizes.requests:,} requests at up to {sizes.rate_per_s:,.0f}/s, drained at {sizes.drains_per_s:,.0f}/s",
        caption=f"theory: peak {sizes.peak:,.0f} jobs, empty after {sizes.empty_s:,.0f} s",
        title_justify="left",
        show_edge=False,
    )
    for head in ("act", "lasts", "what the class will see"):
        shown.add_column(head)
    for act in found.acts:
        shown.add_row(act.name, f"{act.lasted_s:,.0f} s", act.result)
    return shown
