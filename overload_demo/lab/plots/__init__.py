"""Figures, drawn from results and logs, so that a recorded run gives the same figure as a live one.

Each function returns an :class:`AccessibleFigure`, which a notebook shows when it is the last line of a cell. It raises
:class:`ConfigurationError` for data that cannot be drawn, or not compared fairly.
"""

from overload_demo.lab.plots.failure_figures import ccdf, designs, endings, goodput, lives, recovery, spoiled, variants
from overload_demo.lab.plots.measuring_figures import batches, distances, knee, pairs, retransmits, samples, spectrum
from overload_demo.lab.plots.overload_figures import outcomes, side_by_side, storm_map, storms
from overload_demo.lab.plots.repair_figures import counterexample
from overload_demo.lab.plots.spike_figures import cumulative, depth, drains, life, spike, waits
from overload_demo.lab.plots.spike_figures import where_the_waiting_went as where_the_waiting_went

__all__ = ["batches", "ccdf", "counterexample", "cumulative", "depth", "designs", "distances", "drains", "endings"]
__all__ += ["goodput", "knee", "life", "lives", "outcomes", "pairs", "recovery", "retransmits", "samples"]
__all__ += ["side_by_side", "spectrum", "spike", "spoiled", "storm_map", "storms", "variants", "waits"]
__all__ += ["where_the_waiting_went"]
