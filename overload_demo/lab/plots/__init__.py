"""Figures, drawn from results and logs, never from live objects: a recorded run draws the same picture.

Each function returns a :class:`Picture`, which a notebook shows when it is the last line of a cell.
"""

from overload_demo.lab.plots.bounds import outcomes, side_by_side
from overload_demo.lab.plots.comparisons import drains, where_the_waiting_went
from overload_demo.lab.plots.crash import designs, lives, recovery
from overload_demo.lab.plots.flow import cumulative, depth, waits
from overload_demo.lab.plots.life import life
from overload_demo.lab.plots.picture import Picture
from overload_demo.lab.plots.recorded import variants
from overload_demo.lab.plots.spike import trio
from overload_demo.lab.plots.steps import ccdf, endings, goodput, spoiled

__all__ = [
    "Picture",
    "ccdf",
    "cumulative",
    "depth",
    "designs",
    "drains",
    "endings",
    "goodput",
    "life",
    "lives",
    "outcomes",
    "recovery",
    "side_by_side",
    "spoiled",
    "trio",
    "variants",
    "waits",
    "where_the_waiting_went",
]
