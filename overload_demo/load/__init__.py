"""The load generator: aiohttp in child processes of its own, measuring from outside.

It knows nothing of API, queue or store: it sends ``POST {url}/jobs`` by a schedule fixed beforehand, accounts for every
request, and says whether its own figures can be trusted (``LoadSummary.verdict``).

Where things live: ``schedule`` (when to send), ``plan`` (what to fire, validated), ``limits`` (sockets this machine
allows), ``client`` (the child that sends), ``recent`` (its times while it sends), ``generator`` (the parent: start,
progress, collect), ``measure`` (results and their summary), ``calibrate`` (how much a server takes).
"""

from overload_demo.load.calibrate import calibrate
from overload_demo.load.generator import LoadProgress, check_reachable, run_load
from overload_demo.load.measure import Kind, LoadResult, LoadSeries
from overload_demo.load.plan import LoadPlan
from overload_demo.load.schedule import Shape, intended_times
from overload_demo.load.summary import LoadSummary

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
