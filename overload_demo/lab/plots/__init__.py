"""Figures, drawn from results and logs, never from live objects: a recorded run draws the same picture.

Each function returns a :class:`AccessibleFigure`, which a notebook shows when it is the last line of a cell.
"""

from overload_demo.lab.plots.accessible_figure import AccessibleFigure
from overload_demo.lab.plots.bounds_figures import outcomes, side_by_side
from overload_demo.lab.plots.comparisons import drains, where_the_waiting_went
from overload_demo.lab.plots.crash_figures import designs, lives, recovery
from overload_demo.lab.plots.flow_figures import cumulative, depth, waits
from overload_demo.lab.plots.naive_figures import ccdf, endings, goodput, spoiled
from overload_demo.lab.plots.recorded_figure import variants
from overload_demo.lab.plots.spike_figures import spike
from overload_demo.lab.plots.timeline_figure import life

__all__ = [
    "AccessibleFigure",
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
    "spike",
    "spoiled",
    "variants",
    "waits",
    "where_the_waiting_went",
]
