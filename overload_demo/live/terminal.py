"""The live numbers in a terminal."""

import asyncio

from rich.console import Console
from rich.live import Live
from rich.table import Table

from overload_demo.live.feed import EVERY_S, Feed
from overload_demo.live.samples import NOT_KNOWN, NUMBERS


async def show(feed: Feed, console: Console) -> None:
    """Show the latest sample and the state of ``feed`` in place, until cancelled."""
    with Live(console=console, get_renderable=lambda: picture(feed), refresh_per_second=1 / EVERY_S):
        await asyncio.Event().wait()


def picture(feed: Feed) -> Table:
    """The numbers as they are now; a terminal that is not one gets the last of them."""
    samples = feed.samples()
    table = Table(title=feed.state["title"], caption=feed.state["status"], title_justify="left", show_edge=False)
    table.add_column("now")
    table.add_column("", justify="right", min_width=12)
    for label, text in NUMBERS.values():
        table.add_row(label, text(samples[-1]) if samples else NOT_KNOWN)
    return table
