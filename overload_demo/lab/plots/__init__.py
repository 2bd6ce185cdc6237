"""Figures, drawn from results and logs, so that a recorded run gives the same figure as a live one.

Each function returns an :class:`AccessibleFigure`, which a notebook shows when it is the last line of a cell. It raises
:class:`ConfigurationError` for data that cannot be drawn, or not compared fairly.
"""

from overload_demo.lab.plots.failure_figures import ccdf, designs, endings, goodput, lives, recovery, spoiled, variants
from overload_demo.lab.plots.repair_figures import counterexample as counterexample
from overload_demo.lab.plots.spike_figures import cumulative, depth, drains, life, outcomes, side_by_side, spike, waits
from overload_demo.lab.plots.spike_figures import where_the_waiting_went as where_the_waiting_went

__all__ = [
    "ccdf",
    "counterexample",
    "cumulative",
    "depth",
    "designs",
    "drains",
    "endings",
    "goodput",
    "life",
    "lives",
    "outcomes",
]
__all__ += ["recovery", "side_by_side", "spike", "spoiled", "variants", "waits", "where_the_waiting_went"]
