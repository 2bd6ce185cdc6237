"""The evening before: play every act on this machine, and keep the sizes and numbers the class will see."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from overload_demo.lab.dashboard.feed import Feed
from overload_demo.lab.dashboard.page import Prediction
from overload_demo.lab.dashboard.sizes import DELAY_S, Sizes, measure
from overload_demo.lab.dashboard.stage import TITLES, Stage
from overload_demo.lab.running.stack import Stack
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
async def stage_stack(runs: Path) -> AsyncIterator[Stack]:
    """The stack of a stage, in processes, for the length of the block."""
    stack = await Stack.start(placement="process", processing_delay_s=DELAY_S, runs=runs, name="stage")
    async with stack:
        yield stack


async def measured(stack: Stack) -> Sizes:
    """Sizes for this machine, on a stack that is fresh before and after."""
    sizes = await measure(stack)
    await stack.fresh()
    return sizes


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
    async with stage_stack(runs) as stack:
        say("measuring what this machine takes")
        sizes, feed, acts = await measured(stack), Feed(), []
        async with Stage(feed, sizes, stack) as stage:
            for order, title in TITLES.items():
                say(title)
                acts.append(await _play(stage, feed, order))
    found = Rehearsal(environment=Environment.here(descriptor_limit()), sizes=sizes, acts=acts)
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
