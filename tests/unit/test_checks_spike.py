"""The exercises of 04: the usual wrong answers get their own hint, the solution passes."""

from pathlib import Path
from typing import Any

import pytest

from overload_demo.lab.checks import Status, check
from overload_demo.lab.result import SpikeResult

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize(("key", "answer", "facts", "hint"), WRONG)
def test_a_usual_mistake_has_its_hint(key: str, answer: Any, facts: dict[str, Any], hint: str) -> None:
    verdict = check(key, answer, **facts)

    assert verdict.status is Status.NOT_YET
    assert hint in verdict.says


@pytest.mark.parametrize(("key", "answer", "facts"), RIGHT)
def test_the_solution_is_right(key: str, answer: Any, facts: dict[str, Any]) -> None:
    assert check(key, answer, **facts).status is Status.RIGHT


@pytest.mark.parametrize(("key", "facts"), {(key, tuple(facts)): (key, facts) for key, _, facts in RIGHT}.values())
def test_an_empty_cell_is_not_done(key: str, facts: dict[str, Any]) -> None:
    assert check(key, ..., **facts).status is Status.NOT_DONE
    if key == "04.reconcile":
        assert check(key, lambda accepted, done: ..., **facts).status is Status.NOT_DONE
