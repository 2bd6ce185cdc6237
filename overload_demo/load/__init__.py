"""The load generator: it sends ``POST {url}/jobs`` by a schedule fixed beforehand, and accounts for every request.

``plan`` (what to send, and when), ``limits`` (sockets this machine allows), ``sender`` (the child process),
``generator`` (the parent: start, progress, collect), ``measure`` (arrays), ``summary`` (what is stored).
"""

from overload_demo.load.generator import LoadProgress, calibrate, check_reachable, run_load
from overload_demo.load.measure import LoadResult
from overload_demo.load.plan import LoadPlan, Shape, intended_times
from overload_demo.load.summary import Kind, LoadSeries, LoadSummary

__all__ = [
    "Kind",
    "LoadPlan",
    "LoadProgress",
    "LoadResult",
    "LoadSeries",
    "LoadSummary",
    "Shape",
    "calibrate",
    "check_reachable",
    "intended_times",
    "run_load",
]
