"""The load generator: it sends ``POST {url}/jobs`` by a schedule fixed beforehand, and accounts for every request.

``plan`` (what to send, when, and what a client repeats), ``machine`` (the sockets it allows), ``clients`` (send on
time, and again), ``sender`` (the child process), ``generator`` (the parent: start, progress, collect), ``outcomes`` (of
requests and attempts), ``load_result`` (arrays, summary, series).
"""

from overload_demo.load.generator import LoadProgress, calibrate, run_load
from overload_demo.load.load_result import LoadResult, LoadSeries, LoadSummary
from overload_demo.load.outcomes import Attempts, Kind, RetrySummary
from overload_demo.load.plan import LoadPlan, RetryBudget, RetryPolicy, Shape, TokenBucket, intended_times

__all__ = ["Attempts", "Kind", "LoadPlan", "LoadProgress", "LoadResult", "LoadSeries", "LoadSummary", "RetryBudget"]
__all__ += ["RetryPolicy", "RetrySummary", "Shape", "TokenBucket", "calibrate", "intended_times", "run_load"]
