"""Students of 03."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from overload_demo.lab.measuring import Pairs, corrected
from overload_demo.lab.result import recorded_baseline
from overload_demo.load.load_result import LoadSummary, Percentiles
from tests.notebooks.students import Students
from tests.support.steps import step

Correction = Callable[[list[float], float], Any]
NO_NUMBERS = [("0.18", "without quotes"), ([0.18], "a number"), ((0, 18), "decimal point")]


def with_loop(times_s: list[float], interval_s: float) -> list[float]:
    found = []
    for time_s in times_s:
        found.append(time_s)
        left_s = time_s - interval_s
        while left_s >= interval_s:
            found.append(left_s)
            left_s -= interval_s
    return found


def adding(count: Callable[[float], int], value: Callable[[float, float, int], float]) -> Correction:
    """A correction that adds ``count(time / interval)`` times for each time, and keeps all."""
    return lambda times_s, interval_s: [
        *times_s,
        *(value(time_s, interval_s, k) for time_s in times_s for k in range(1, 1 + count(time_s / interval_s))),
    ]


def left_out(ratio: float) -> int:
    return max(0, math.floor(ratio) - 1)


def later(time_s: float, interval_s: float, k: int) -> float:
    return time_s - k * interval_s


def report(verdict: str, reason: str, p99_s: float) -> LoadSummary:
    times = Percentiles(count=100, p50_s=p99_s / 2, p90_s=p99_s, p99_s=p99_s, p999_s=p99_s, max_s=p99_s)
    changes = {"verdict": verdict, "reason": reason, "response_time": times}
    return recorded_baseline()[0].summary.model_copy(update=changes)


REPORTS = {
    "calm": report("valid", "99 % left within 1.0 ms of their time, no core was full", 0.01),
    "frozen": report("valid", "99 % left within 1.1 ms of their time, no core was full", 1.9),
    "hurried": report("generator-bound", "1 % of the requests left more than 900 ms late", 1.0),
}
VALID = {"calm": REPORTS["calm"], "frozen": REPORTS["frozen"]}


def knee_step(rate_per_s: float, median_s: float, p99_s: float, goodput_per_s: float) -> Any:
    times = Percentiles(count=100, p50_s=median_s, p90_s=p99_s, p99_s=p99_s, p999_s=p99_s, max_s=p99_s)
    one = step(offered_per_s=rate_per_s, delay_s=0.004, answered_per_s=[goodput_per_s])
    object.__setattr__(one, "summary", one.summary.model_copy(update={"response_time": times}))
    return one


STEPS = [
    knee_step(50, 0.006, 0.015, 50),
    knee_step(100, 0.007, 0.03, 100),
    knee_step(150, 0.012, 0.08, 150),
    knee_step(200, 0.3, 0.9, 190),
]
DISTURBED = [knee_step(50, 0.006, 0.06, 50), *STEPS[1:]]  # another program ran during the first step
EVEN = Pairs(np.full(12, 100.0), np.array([101.0, 99] * 6))
UNEVEN = Pairs(np.full(12, 100.0), np.array([103.0] * 11 + [99]))

STUDENTS = [
    Students(
        "03.correct",
        right=[with_loop, corrected, adding(left_out, later)],
        wrong=[
            (lambda times_s, interval_s: times_s, "added nothing"),
            (adding(left_out, lambda time_s, *_: time_s), "repeat measured times"),
            (lambda times_s, interval_s: corrected(times_s, interval_s)[len(times_s) :], "is missing in your list"),
            (adding(left_out, lambda time_s, interval_s, k: time_s + k * interval_s), "longer than any measured"),
            (adding(math.floor, later), "ends at the interval"),
            (adding(lambda ratio: min(1, left_out(ratio)), later), "and you add 1"),
        ],
        wrong_type=[
            (0.05, "is a function"),
            (with_loop([0.35], 0.1), "is a function"),
            (lambda times_s, interval_s: max(times_s), "not a list of times"),
            (lambda times_s, interval_s: "0.35", "not a list of times"),
        ],
        unfinished=[lambda times_s, interval_s: ...],
    ),
    Students(
        "03.page",
        facts={"requests": 20},
        right=[1 - 0.99**20, 0.18],
        wrong=[
            (0.01, "the share of slow requests"),
            (0.2, "counts a page with two"),
            (0.99**20, "without any slow"),
            (0.01**20, "all of whose"),
            (18.2, "as a percentage"),
            (20, "and added up"),
        ],
        wrong_type=NO_NUMBERS,
    ),
    Students(
        "03.step",
        right=["operating system"],
        wrong=[
            ("api", "stood still for less"),
            ("store", "never stopped"),
            ("generator", "sent on time"),
            ("worker", "does not wait"),
        ],
        wrong_type=[(1, "one of"), (["operating system"], "one of"), ("kernel", "one of")],
    ),
    Students(
        "03.invalid",
        facts={"reports": REPORTS},
        right=[("hurried", "lag")],
        wrong=[
            (("calm", "lag"), "In calm"),
            (("frozen", "p99"), "In frozen"),
            (("hurried", "p99"), "well be the server's"),
            (("hurried", "mode"), "keep its schedule"),
            (("hurried", "planned"), "weak report"),
        ],
        wrong_type=[("hurried", "two words"), (("hurried", 0.9), "one of"), ((REPORTS["calm"], "lag"), "one of")],
        unfinished=[(..., ...), ("hurried", ...)],
    ),
    Students(
        "03.invalid",
        facts={"reports": VALID},
        wrong=[(("calm", "lag"), "All of these reports are valid")],
    ),
    Students(
        "03.pairs",
        right=[6],
        wrong=[
            (5, "together 0.063"),
            (4, "more often than in 5 %"),
            (20, "the limit of the probability"),
            (1, "a winner always"),
            (3, "a quarter of the cases"),
        ],
        wrong_type=[("6", "without quotes"), ([6], "a number")],
    ),
    Students(
        "03.claim",
        facts={"pairs": UNEVEN},
        right=["B is faster", "b is faster"],
        wrong=[
            ("A is faster", "the winner is the other one"),
            ("not shown", "that is below 0.05"),
            ("they are equal", "that is below 0.05"),
        ],
        wrong_type=[(0.006, "one of"), (True, "one of"), ("B", "one of")],
    ),
    Students(
        "03.claim",
        facts={"pairs": EVEN},
        right=["not shown"],
        wrong=[("B is faster", "is not below 0.05"), ("they are equal", "shows that there is none")],
    ),
    Students(
        "03.knee",
        facts={"steps": STEPS, "promise_s": 0.04},
        right=[100],
        wrong=[
            (150, "the median keeps"),
            (250, "Close to it the queue"),
            (200, "the most answers"),
            (40, "not a percentage"),
            (0.04, "the promise, in seconds"),
        ],
        wrong_type=[("100", "without quotes"), ([100], "a number"), (STEPS[1], "a number")],
    ),
    Students(
        "03.knee",
        facts={"steps": DISTURBED, "promise_s": 0.04},
        right=[0],
        wrong=[(100, "not at each lower one"), (150, "the median keeps")],
    ),
]
