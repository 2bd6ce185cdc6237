"""A recorded step of the naive API, for what is drawn from steps and judged by them."""

from typing import Any

import numpy as np

from overload_demo.lab.naive_api import LoadStep
from overload_demo.lab.result import recorded_baseline

OUTCOMES = ("refused", "reset", "connect_timeout", "read_timeout", "disconnected", "address_unavailable", "other")


def step(planned: int = 2400, answered: int = 32, failed_by: str = "read_timeout", **changes: Any) -> LoadStep:
    """An overload of the naive API as it was measured once, with changes: 400/s for 6 s at a slot of 100/s.

    All requests without a response end by the outcome ``failed_by``.
    """
    counts: dict[str, Any] = dict.fromkeys(OUTCOMES, 0) | {failed_by: planned - answered, "other_status": {}}
    counts |= {"planned": planned, "sent": planned, "accepted": answered, "dropped": 0, "response_time": None}
    measured: dict[str, Any] = {
        "variant": "def-slot",
        "delay_s": 0.01,
        "timeout_s": 1.0,
        "seconds": 6.0,
        "offered_per_s": 400.0,
        "on_a_fresh_server": True,
        "summary": recorded_baseline()[0].summary.model_copy(update=counts),
        "response_s": np.linspace(0.1, 0.9, answered),
        "answered_per_s": [40.0, 13.3, 0, 0, 0, 0, 0, 0, 0, 0],
        "backlog_before": 0,
        "backlog_after": 2236,
        "completed": 664,
    }
    return LoadStep(**(measured | changes))
