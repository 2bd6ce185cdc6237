"""A recorded step of the naive API, for what is drawn from steps and judged by them."""

from typing import Any

from overload_demo.lab.baseline import recorded_baseline
from overload_demo.lab.naive_api import LoadStep


def step(**changes: Any) -> LoadStep:
    """An overload of the naive API as it was measured once, with changes: 400/s for 6 s at a slot of 100/s."""
    measured: dict[str, Any] = {
        "variant": "def-slot",
        "delay_s": 0.01,
        "timeout_s": 1.0,
        "seconds": 6.0,
        "offered_per_s": 400.0,
        "on_a_fresh_server": True,
        "planned": 2400,
        "answered": 32,
        "answered_meanwhile": 32,
        "failures": {"read timeout": 2368},
        "dropped": 0,
        "response_time": None,
        "times_s": [0.1, 0.4, 0.9],
        "unanswered": [0.995, 0.99, 0.987],
        "bucket_s": 0.6,
        "bucket_answered_per_s": [40.0, 13.3, 0, 0, 0, 0, 0, 0, 0, 0],
        "backlog_before": 0,
        "backlog_after": 2236,
        "completed": 664,
        "verdict": "valid",
        "reason": "99 % left within 1.4 ms of their time, no core was full",
        "environment": recorded_baseline()[0].summary.environment,
    }
    return LoadStep(**(measured | changes))
