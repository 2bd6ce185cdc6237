"""Answers to the exercises of 04."""

from pathlib import Path
from typing import Any

from overload_demo.lab.records.result import SpikeResult

ROOT = Path(__file__).parents[3]
RECORDED = SpikeResult.read(ROOT / "experiments" / "results" / "spike.json")
SLOWER = RECORDED.model_copy(update={"drain_rate_per_s": RECORDED.drain_rate_per_s / 3})
WORK = {"jobs": 100_000, "seconds_a_job": 2.0}
RUN = {"result": RECORDED}
BOTH = {"kernel": SLOWER, "processes": RECORDED}

WRONG: list[tuple[str, Any, dict[str, Any], str]] = [
    ("04.hours", 200_000, WORK, "seconds"),
    ("04.hours", 200_000 / 60, WORK, "minutes"),
    ("04.hours", 100_000 / 3600, WORK, "one second"),
    ("04.hours", "55.6", WORK, "without quotes"),
    ("04.drain_time", RECORDED.offered / RECORDED.drain_rate_per_s, RUN, "all jobs"),
    ("04.drain_time", RECORDED.peak_queue_depth / RECORDED.conditions.rate_per_s, RUN, "arrival rate"),
    ("04.drain_time", RECORDED.drain_rate_per_s / RECORDED.peak_queue_depth, RUN, "Upside down"),
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
    ("04.reconcile", lambda accepted, done: len(accepted - done), {}),
    ("04.reconcile", lambda accepted, done: accepted - done, {}),
    ("04.where", "Door", {}),
    ("04.gil", 3, BOTH),
]
