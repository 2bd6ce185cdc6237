"""Answers to the exercises of 04."""

from pathlib import Path
from typing import Any

from overload_demo.lab.result import SpikeResult

ROOT = Path(__file__).parents[3]
RECORDED = SpikeResult.read(ROOT / "experiments" / "results" / "spike.json")
SLOWER = RECORDED.model_copy(update={"drain_rate_per_s": RECORDED.drain_rate_per_s / 3})
WORK = {"jobs": 100_000, "seconds_a_job": 2.0}
RUN = {"result": RECORDED}
BOTH = {"kernel": SLOWER, "processes": RECORDED}
# API and worker in one interpreter: 300 jobs/s while 1,500/s come for 20 s, 1,600/s after the peak of 24,000.
AT_S = [float(second) for second in range(36)]
SETTLED = [int(min(300 * at_s, 6_000) + 1_600 * max(0.0, at_s - 20)) for at_s in AT_S]
DEPTH = [int(1_500 * min(at_s, 20)) - done for at_s, done in zip(AT_S, SETTLED, strict=True)]
SERIES = RECORDED.series.model_copy(
    update={"sampled_at_s": AT_S, "settled": SETTLED, "queue_depth": DEPTH, "in_flight": [0] * len(AT_S)}
)
IN_KERNEL = {
    "result": RECORDED.model_copy(
        update={
            "series": SERIES,
            "offered": 30_000,
            "peak_queue_depth": max(DEPTH),
            "drain_rate_per_s": SERIES.drain_rate_per_s(),
            "seconds_to_empty": SERIES.seconds_to_empty(),
        }
    )
}

WRONG: list[tuple[str, Any, dict[str, Any], str]] = [
    ("04.hours", 200_000, WORK, "seconds"),
    ("04.hours", 200_000 / 60, WORK, "minutes"),
    ("04.hours", 100_000 / 3600, WORK, "one second"),
    ("04.hours", "55.6", WORK, "without quotes"),
    ("04.drain_time", RECORDED.offered / RECORDED.drain_rate_per_s, RUN, "all jobs"),
    ("04.drain_time", RECORDED.peak_queue_depth / RECORDED.conditions.rate_per_s, RUN, "arrival rate"),
    ("04.drain_time", RECORDED.drain_rate_per_s / RECORDED.peak_queue_depth, RUN, "Upside down"),
    ("04.drain_time", 24_000 / SERIES.drain_rate_per_s(), IN_KERNEL, "after its peak"),
    ("04.drain_time", 35, IN_KERNEL, "counted from the first request"),
    ("04.drain_time", 17, IN_KERNEL, "too large"),
    ("04.gil", 3.2, BOTH, "too large"),
    ("04.reconcile", lambda accepted, done: len(accepted) - len(done), {}, "although both counts are 2"),
    ("04.reconcile", lambda accepted, done: len(done - accepted), {}, "b and c are lost"),
    ("04.reconcile", lambda accepted, done: len(accepted ^ done), {}, "a is lost"),
    ("04.reconcile", 0, {}, "called like"),
    ("04.where", "queue", {}, "no 202 yet"),
    ("04.where", "here", {}, "one of"),
    ("04.gil", 1 / 3, BOTH, "Upside down"),
]
RIGHT: list[tuple[str, Any, dict[str, Any]]] = [
    ("04.hours", 55.6, WORK),
    ("04.drain_time", RECORDED.peak_queue_depth / RECORDED.drain_rate_per_s, RUN),
    ("04.drain_time", RECORDED.series.seconds_from_peak(), RUN),
    ("04.drain_time", 15, IN_KERNEL),
    ("04.drain_time", 16, IN_KERNEL),
    ("04.drain_time", 24_000 / 1_600, IN_KERNEL),
    ("04.reconcile", lambda accepted, done: len(accepted - done), {}),
    ("04.reconcile", lambda accepted, done: accepted - done, {}),
    ("04.where", "Door", {}),
    ("04.gil", 3, BOTH),
    ("04.gil", 3.1, BOTH),
]
