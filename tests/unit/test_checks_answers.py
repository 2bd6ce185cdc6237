"""Exercises of 00, 01 and 04: usual wrong answers get their own hint, solutions pass, an empty cell is not done."""

from typing import Any

import pytest

from overload_demo.course.exercise import Status, check
from tests.unit.answers import naive, preflight, spike

NOTEBOOKS = (preflight, naive, spike)
WRONG = [row for notebook in NOTEBOOKS for row in notebook.WRONG]
RIGHT = [row for notebook in NOTEBOOKS for row in notebook.RIGHT]


@pytest.mark.parametrize(("key", "answer", "facts", "hint"), WRONG)
def test_a_usual_mistake_has_its_hint(key: str, answer: Any, facts: dict[str, Any], hint: str) -> None:
    verdict = check(key, answer, **facts)

    assert verdict.status is Status.NOT_YET
    assert hint in verdict.text


@pytest.mark.parametrize(("key", "answer", "facts"), RIGHT)
def test_the_solution_is_right(key: str, answer: Any, facts: dict[str, Any]) -> None:
    assert check(key, answer, **facts).status is Status.RIGHT


@pytest.mark.parametrize(("key", "facts"), {key: (key, facts) for key, _, facts in RIGHT}.values())
def test_an_empty_cell_is_not_done(key: str, facts: dict[str, Any]) -> None:
    assert check(key, ..., **facts).status is Status.NOT_DONE


def test_a_call_that_was_not_awaited_is_no_answer() -> None:
    async def call() -> None: ...

    forgotten = call()
    verdict = check("00.first_job", forgotten, **preflight.UNKNOWN)
    forgotten.close()

    assert "awaited" in verdict.text


@pytest.mark.parametrize("half", [(..., ...), ("no scarce resource", ...)])
def test_a_pair_of_which_half_is_missing_is_not_done(half: tuple[Any, Any]) -> None:
    assert check("01.threads", half, **naive.RUNS).status is Status.NOT_DONE


def test_a_function_that_is_not_written_yet_is_not_done() -> None:
    assert check("04.reconcile", lambda accepted, done: ...).status is Status.NOT_DONE
