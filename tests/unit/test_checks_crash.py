"""The exercises of 07: the empty cell is not done, each usual mistake has its hint, the solution is right."""

from collections.abc import Callable
from typing import Any

import pytest

from overload_demo.course.exercise import Status, check, exercises

FACTS: dict[str, dict[str, Any]] = {
    "07.idempotent": {},
    "07.lease": {"job_times_s": [1.0, 1.0, 2.0, 14.0], "back_within_s": 30.0},
    "07.duplicates": {"kills": 3, "batch_s": 0.05, "job_s": 0.005},
    "07.promise": {},
}
Handler = Callable[[dict[Any, Any], str, float], object]


def assign(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    ledger[job_id] = amount


def look_first(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    if job_id not in ledger:
        ledger[job_id] = amount


def set_default(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    ledger.setdefault(job_id, amount)


def update(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    ledger.update({job_id: amount})


def stub(ledger: dict[Any, Any], job_id: str, amount: float) -> None: ...


def elsewhere(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    of_its_own = dict(ledger)
    of_its_own[job_id] = amount


def by_amount(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    ledger[amount] = job_id


def total(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    ledger["total"] = ledger.get("total", 0) + amount


def total_and_mark(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    if job_id not in ledger:
        ledger[job_id] = True
        ledger["total"] = ledger.get("total", 0) + amount


def wrong_value(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    ledger[job_id] = True


def add(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    ledger[job_id] = ledger.get(job_id, 0) + amount


def mark_then_charge(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    if job_id not in ledger:
        ledger[job_id] = 0
        ledger[job_id] = amount


def two_arguments(ledger: dict[Any, Any], job_id: str) -> None:
    ledger[job_id] = 1.0


def test_each_exercise_of_07_is_judged_here() -> None:
    assert {key for key in exercises() if key.startswith("07.")} == set(FACTS)


@pytest.mark.parametrize("key", FACTS)
@pytest.mark.parametrize("answer", [..., None], ids=repr)
def test_an_empty_cell_is_not_done(key: str, answer: object) -> None:
    assert check(key, answer, **FACTS[key]).status is Status.NOT_DONE


def test_an_empty_function_is_not_done() -> None:
    assert check("07.idempotent", stub).status is Status.NOT_DONE


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("07.idempotent", assign),
        ("07.idempotent", look_first),
        ("07.idempotent", set_default),
        ("07.idempotent", update),
        ("07.lease", 20),
        ("07.lease", 14.5),
        ("07.lease", 30),
        ("07.duplicates", 30),
        ("07.promise", "at least once"),
        ("07.promise", " At Least Once "),
    ],
)
def test_a_right_answer_is_right(key: str, answer: object) -> None:
    assert check(key, answer, **FACTS[key]).status is Status.RIGHT


@pytest.mark.parametrize(
    ("key", "answer", "hint"),
    [
        ("07.idempotent", 5.0, "a function, called like charge(ledger, job_id, amount)"),
        ("07.idempotent", two_arguments, "TypeError"),
        ("07.idempotent", elsewhere, "still empty"),
        ("07.idempotent", by_amount, "same amount"),
        ("07.idempotent", total, "running total"),
        ("07.idempotent", total_and_mark, "more than one entry a job"),
        ("07.idempotent", wrong_value, "not the amount"),
        ("07.idempotent", add, "charges again"),
        ("07.idempotent", mark_then_charge, "Killed after its first write"),
        ("07.lease", "20", "without quotes"),
        ("07.lease", 0, "more than 0"),
        ("07.lease", 2, "most jobs"),
        ("07.lease", 14.0, "a second worker starts it too"),
        ("07.lease", 300, "Too long"),
        ("07.duplicates", True, "a number"),
        ("07.duplicates", 0, "can promise zero"),
        ("07.duplicates", 3, "Not only the running job"),
        ("07.duplicates", 10, "one kill"),
        ("07.duplicates", 2_000, "jobs it has leased"),
        ("07.duplicates", 31, "too large"),
        ("07.promise", "exactly once", "harmless"),
        ("07.promise", "at most once", "never charged"),
        ("07.promise", 1, "one of"),
        ("07.promise", "always", "one of"),
    ],
)
def test_a_usual_mistake_gets_its_hint(key: str, answer: object, hint: str) -> None:
    verdict = check(key, answer, **FACTS[key])

    assert verdict.status is Status.NOT_YET
    assert hint in verdict.text
