"""Answers to the exercises of 02."""

from typing import Any

import numpy as np

from overload_demo.lab.job_log import JobLog

SALE = {"arrival_per_s": 800, "drain_per_s": 300, "spike_s": 30}
# Four jobs in 8 s, which wait 2, 3, 4 and 5 s: L = 4/8 x 3.5. The spike alone lasts 3 s.
LOG = {"log": JobLog(np.arange(4.0), np.arange(4.0), np.arange(4.0), np.array([2.0, 4.0, 6.0, 8.0]), 4)}
LITTLE = 1.75
ANSWERS = {"02.peak_depth": 15_000, "02.seconds_to_empty": 80, "02.wait": 50, "02.half": 6_000, "02.little": LITTLE}
NO_NUMBERS = (("15,000", "without quotes"), (True, "a number"), ([1], "a number"), (float("nan"), "finite"))
MISTAKES: list[tuple[str, float, str]] = [
    ("02.peak_depth", 24_000, "as if none left"),
    ("02.peak_depth", 500, "How many seconds"),
    ("02.peak_depth", 9_000, "done during the spike"),
    ("02.peak_depth", -15_000, "below 0"),
    ("02.seconds_to_empty", 50, "T comes on top"),
    ("02.seconds_to_empty", 30 + 15_000 / 800, "divided by λ"),
    ("02.seconds_to_empty", 15_000 / 800, "divided by λ"),
    ("02.seconds_to_empty", 60, "is how it grows"),
    ("02.seconds_to_empty", 30, "deepest"),
    ("02.wait", 80, "counted from the first request"),
    ("02.wait", 15_000 / 800, "divided by λ"),
    ("02.wait", 25, "the mean wait"),
    ("02.wait", 1 / 300, "one job takes"),
    ("02.half", 7_500, "does not halve"),
    ("02.half", 15_000, "the old peak"),
    ("02.half", 30_000, "deeper"),
    ("02.little", LITTLE * 8 / 3, "divided by the spike alone"),
    ("02.little", 3.5, "That is W"),
    ("02.little", 14, "sum of all waits"),
    ("02.little", 0.5, "That is λ"),
    ("02.little", 2, "a guess from the figure"),
    ("02.little", LITTLE * 1.07, "too large"),
]


def facts(key: str) -> dict[str, Any]:
    return LOG if key == "02.little" else SALE


WRONG: list[tuple[str, Any, dict[str, Any], str]] = [
    *((key, wrong, facts(key), hint) for key in ANSWERS for wrong, hint in (*NO_NUMBERS, (-1e9, "small"))),
    *((key, wrong, facts(key), hint) for key, wrong, hint in MISTAKES),
]
RIGHT: list[tuple[str, Any, dict[str, Any]]] = [
    *((key, answer, facts(key)) for key, answer in ANSWERS.items()),
    *((key, np.float64(answer), facts(key)) for key, answer in ANSWERS.items()),
    ("02.little", LITTLE * 1.04, LOG),
]
