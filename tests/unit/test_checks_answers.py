"""Each exercise: usual mistakes get their own hint, solutions pass, an empty cell is not done."""

from typing import Any

import pytest

from overload_demo.course.exercise import Status, check, exercises
from tests.unit.answers import bounds, crash, flow, naive, preflight, spike

NOTEBOOKS = (preflight, naive, flow, spike, bounds, crash)
WRONG = [row for notebook in NOTEBOOKS for row in notebook.WRONG]
RIGHT = [row for notebook in NOTEBOOKS for row in notebook.RIGHT]
EMPTY = [(key, empty, facts) for key, facts in {key: facts for key, _, facts in RIGHT}.items() for empty in (..., None)]
NOT_DONE = [
    *(row for notebook in (bounds, crash) for row in notebook.NOT_DONE),
    ("01.threads", (..., ...), naive.RUNS),
    ("01.threads", ("no scarce resource", ...), naive.RUNS),
    ("04.reconcile", lambda accepted, done: ..., {}),
]


def test_every_exercise_has_an_answer() -> None:
    assert {key for key, _, _ in RIGHT} == set(exercises())


@pytest.mark.parametrize(("key", "answer", "facts", "hint"), WRONG)
def test_a_usual_mistake_has_its_hint(key: str, answer: Any, facts: dict[str, Any], hint: str) -> None:
    verdict = check(key, answer, **facts)

    assert verdict.status is Status.NOT_YET
    assert hint in verdict.text


@pytest.mark.parametrize(("key", "answer", "facts"), RIGHT)
def test_the_solution_is_right(key: str, answer: Any, facts: dict[str, Any]) -> None:
    assert check(key, answer, **facts).status is Status.RIGHT


@pytest.mark.parametrize(("key", "answer", "facts"), [*EMPTY, *NOT_DONE])
def test_an_answer_that_is_not_written_yet_is_not_done(key: str, answer: Any, facts: dict[str, Any]) -> None:
    assert check(key, answer, **facts).status is Status.NOT_DONE


def test_a_call_without_await_is_a_mistake() -> None:
    async def call() -> None: ...

    unawaited = call()
    verdict = check("00.first_job", unawaited, **preflight.UNKNOWN)
    unawaited.close()

    assert "awaited" in verdict.text
