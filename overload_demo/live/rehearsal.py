"""Rehearse a class on this machine: size the acts, play each, and keep the sizes and results for the next day."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from pydantic import BaseModel, ValidationError
from rich.table import Table

from overload_demo.errors import OverloadDemoError
from overload_demo.lab.stack import Stack
from overload_demo.live.feed import Feed
from overload_demo.live.page import ClassGuess
from overload_demo.live.stage import DELAY_S, TITLES, Sizes, Stage
from overload_demo.load import calibrate
from overload_demo.load.limits import descriptor_limit
from overload_demo.load.summary import Environment

FILE = "rehearsal.json"
MEASURE_DRAIN_S = 3.0


class RehearsedAct(BaseModel, frozen=True):
    """The result of one act; ``lasted_s`` from the order to the result."""

    name: str
    result: str
    lasted_s: float


class Rehearsal(BaseModel, frozen=True):
    """The sizes and acts of a rehearsal; valid for a machine like ``environment``."""

    environment: Environment
    sizes: Sizes
    acts: list[RehearsedAct]


async def measure(stack: Stack) -> Sizes:
    """Measure what the API accepts and the worker drains, in about seven seconds; leaves ``stack`` used.

    The drain rate is measured on the backlog of the calibration, while no requests are sent. Raises
    :class:`OverloadDemoError` when nothing is accepted or drained.
    """
    accepts_per_s = await calibrate(stack.url, api_key=stack.api_key)
    before, began = await asyncio.to_thread(stack.get, "/queue/stats"), time.monotonic()
    await asyncio.sleep(MEASURE_DRAIN_S)
    after, ended = await asyncio.to_thread(stack.get, "/queue/stats"), time.monotonic()
    drains_per_s = (after["done"] - before["done"]) / (ended - began)
    if not drains_per_s > 0:
        raise OverloadDemoError("cannot size the acts: the worker drained no job while its rate was measured")
    return Sizes.of(accepts_per_s, drains_per_s)


@asynccontextmanager
async def open_stage(feed: Feed, runs: Path, sizes: Sizes | None) -> AsyncIterator[Stage]:
    """Yield a stage with a stack of its own, in processes; without ``sizes``, measure the machine first.

    Raises the errors of :meth:`Stack.start` and :func:`measure`.
    """

    async def start(delay_s: float) -> Stack:
        return await Stack.start(placement="process", processing_delay_s=delay_s, runs=runs, name="stage")

    async with AsyncExitStack() as cleanup:
        if sizes is None:
            sizes = await measure(await cleanup.enter_async_context(await start(DELAY_S)))
        stack = await cleanup.enter_async_context(await start(sizes.delay_s))
        yield await cleanup.enter_async_context(Stage(feed, sizes, stack))


def last(runs: Path) -> Sizes | None:
    """Return the sizes of the last rehearsal, None without one on a machine like this."""
    try:
        found = Rehearsal.model_validate_json((runs / FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return found.sizes if found.environment.is_like(Environment.here(descriptor_limit())) else None


async def rehearse(runs: Path, report: Callable[[str], None]) -> Table:
    """Measure this machine, play each act, and keep sizes and results in ``runs``; return them as a table.

    ``report`` gets the name of each step. Takes about three minutes.
    """
    report("measuring this machine")
    feed, acts = Feed(), []
    async with open_stage(feed, runs, None) as stage:
        for order, title in TITLES.items():
            report(title)
            began = time.monotonic()
            await stage.act(order, ClassGuess())
            await stage.wait()
            lasted_s = round(time.monotonic() - began, 1)
            acts.append(RehearsedAct(name=title, result=feed.state["result"], lasted_s=lasted_s))
    found = Rehearsal(environment=Environment.here(descriptor_limit()), sizes=stage.sizes, acts=acts)
    (runs / FILE).write_text(found.model_dump_json(indent=1) + "\n")
    return _table(found)


def _table(found: Rehearsal) -> Table:
    sizes = found.sizes
    shown = Table(
        "act",
        "lasts",
        "what the class will see",
        title=f"{sizes.requests:,} requests at up to {sizes.rate_per_s:,.0f}/s, drained at {sizes.drains_per_s:,.0f}/s",
        caption=f"theory: peak {sizes.peak:,.0f} jobs, empty after {sizes.empty_s:,.0f} s",
        title_justify="left",
        show_edge=False,
    )
    for act in found.acts:
        shown.add_row(act.name, f"{act.lasted_s:,.0f} s", act.result)
    return shown
