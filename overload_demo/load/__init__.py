"""The load generator: it sends ``POST {url}/jobs`` by a schedule fixed beforehand, and accounts for every request.

``plan`` (what to send, and when), ``retry_policy`` (what a client repeats), ``machine`` (the sockets it allows),
``sender`` (the child process), ``generator`` (the parent: start, progress, collect), ``load_result`` (arrays, summary,
series).
"""

from overload_demo.load.generator import LoadProgress, calibrate, run_load
from overload_demo.load.load_result import Kind, LoadResult, LoadSeries, LoadSummary
from overload_demo.load.plan import LoadPlan, Shape, intended_times
from overload_demo.load.retry_policy import RetryBudget, RetryPolicy, TokenBucket

__all__ = ["Kind", "LoadPlan", "LoadProgress", "LoadResult", "LoadSeries", "LoadSummary", "Shape", "calibrate"]
__all__ += ["RetryBudget", "RetryPolicy", "TokenBucket", "intended_times", "run_load"]
