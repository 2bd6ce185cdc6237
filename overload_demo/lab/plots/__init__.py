"""Figures, drawn from results and logs, so that a recorded run gives the same figure as a live one.

Each function returns an :class:`AccessibleFigure`, which a notebook shows when it is the last line of a cell.
"""

from overload_demo.lab.plots.accessible_figure import AccessibleFigure
from overload_demo.lab.plots.bounds_figures import outcomes, side_by_side
from overload_demo.lab.plots.crash_figures import designs, lives, recovery
from overload_demo.lab.plots.flow_figures import cumulative, depth, life, waits
from overload_demo.lab.plots.naive_figures import ccdf, endings, goodput, spoiled, variants
from overload_demo.lab.plots.spike_figures import drains, spike, where_the_waiting_went

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
