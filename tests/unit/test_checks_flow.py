"""Exercises of 02: what counts as right, and which mistake gets which hint."""

import re

import numpy as np
import pytest

from overload_demo.course import check
from overload_demo.lab.job_log import JobLog

SALE = {"arrival_per_s": 800, "drain_per_s": 300, "spike_s": 30}
ARITHMETIC = {"02.peak_depth": 15_000, "02.seconds_to_empty": 80, "02.wait": 50, "02.half": 6_000}
# Four jobs in 8 s, which wait 2, 3, 4 and 5 s: L = 4/8 x 3.5. The spike alone lasts 3 s.
LOG = JobLog(np.arange(4.0), np.arange(4.0), np.arange(4.0), np.array([2.0, 4.0, 6.0, 8.0]), 4)
LITTLE = 1.75


def facts(key: str) -> dict[str, object]:
    return {"log": LOG} if key == "02.little" else dict(SALE)


@pytest.mark.parametrize("key", [*ARITHMETIC, "02.little"])
@pytest.mark.parametrize("empty", [..., None])
def test_an_empty_cell_is_not_done(key: str, empty: object) -> None:
    assert check(key, empty, **facts(key)).status == "not done"


@pytest.mark.parametrize("key", [*ARITHMETIC, "02.little"])
@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("15,000", "without quotes"), (True, "a number"), ([1], "a number"), (float("nan"), "finite"), (-1e9, "small")],
)
def test_an_answer_that_is_no_number_gets_a_hint(key: str, wrong: object, hint: str) -> None:
    verdict = check(key, wrong, **facts(key))

    assert verdict.status == "not yet"
    assert hint in verdict.text


@pytest.mark.parametrize(("key", "answer"), [*ARITHMETIC.items(), ("02.little", LITTLE)])
def test_the_right_number_is_right(key: str, answer: float) -> None:
    assert check(key, answer, **facts(key)).status == "right"
    assert check(key, np.float64(answer), **facts(key)).status == "right"


@pytest.mark.parametrize(
    ("key", "wrong", "hint"),
    [
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
    ],
)
def test_a_usual_mistake_gets_its_own_hint(key: str, wrong: float, hint: str) -> None:
    verdict = check(key, wrong, **facts(key))

    assert verdict.status == "not yet"
    assert re.search(hint, verdict.text), verdict.text


def test_little_is_judged_to_5_percent() -> None:
    assert check("02.little", LITTLE * 1.04, log=LOG).status == "right"
    assert check("02.little", LITTLE * 1.07, log=LOG).status == "not yet"
