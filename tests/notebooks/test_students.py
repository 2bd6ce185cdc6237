"""Each exercise: usual mistakes get their own hint, solutions pass, and no answer of a wrong type raises an error.

The answers stand in ``tests/notebooks/students``; its docstring says what an author of a notebook adds.
"""

import inspect
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from overload_demo.course import exercise
from overload_demo.course.exercise import Status, Verdict, check, exercises
from tests.notebooks.kernels import NOTEBOOKS
from tests.notebooks.students import Students, all_students

STUDENTS = all_students()
NO_DIAGNOSIS = re.compile(r"is too (small|large)|answer is one of")
MOST_CHARACTERS = 400  # of a hint: what is read below a cell


async def asynchronous(*_: object) -> None: ...


class Table:
    """An object whose text has many lines, like a data frame."""

    def __repr__(self) -> str:
        return "a  b\n" * 1000


STRANGE: dict[str, Any] = {
    "text": "forty-two",
    "bytes": b"42",
    "list": [42],
    "tuple": (1, 2, 3),
    "dict": {},
    "true": True,
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "numpy nan": np.float64("nan"),
    "complex": 4j,
    "array": np.arange(3.0),
    "huge": 10**400,
    "too long to print": 10**5000,
    "object": Table(),
    "class": Table,
}
each_student = pytest.mark.parametrize("student", STUDENTS, ids=repr)


@pytest.fixture(autouse=True)
def _first_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exercise, "_tries", Counter())


def first_hint(student: Students, answer: Any) -> str:
    """The hint at the first try; it is one line, short, and not about an exception of ours."""
    exercise._tries.clear()
    verdict = check(student.key, answer, **student.facts)
    assert verdict.status is Status.NOT_YET, f"{answer!r:.80} is {verdict.status}"
    assert_readable(verdict)
    return verdict.text


def assert_readable(verdict: Verdict) -> None:
    assert "\n" not in verdict.text and "Traceback" not in verdict.text
    assert len(verdict.text) <= MOST_CHARACTERS, verdict.text


def wants_function(student: Students) -> bool:
    return any(callable(answer) for answer in student.right)


def table_of(key: str) -> str:
    slugs = [path.stem[3:] for path in NOTEBOOKS if path.stem.startswith(f"{key[:2]}_")]
    return f"tests/notebooks/students/{slugs[0] if slugs else 'SLUG'}.py"


@pytest.mark.parametrize("key", sorted(exercises()))
def test_every_exercise_has_students_with_three_different_mistakes(key: str) -> None:
    entries = [one for one in STUDENTS if one.key == key]
    assert any(one.right for one in entries), (
        f"no students: add Students({key!r}, ...) to {table_of(key)}, see students/__init__.py"
    )
    fragments = {fragment for one in entries for _, fragment in one.wrong}
    assert len(fragments) >= 3, f"{table_of(key)}: {key} needs 3 mistakes with different hints, has {sorted(fragments)}"
    assert any(one.wrong_type for one in entries), f"{table_of(key)}: {key} needs an answer of a wrong type"


def test_students_answer_exercises_that_exist() -> None:
    assert {one.key for one in STUDENTS} <= exercises().keys()


@each_student
def test_the_solution_is_right(student: Students) -> None:
    for answer in student.right:
        verdict = check(student.key, answer, **student.facts)
        assert verdict.status is Status.RIGHT, f"{answer!r:.80}: {verdict.text}"


@each_student
def test_a_usual_mistake_has_its_hint(student: Students) -> None:
    for answer, fragment in student.wrong:
        hint = first_hint(student, answer)
        assert fragment in hint, f"{answer!r:.80} gets {hint!r}"
        assert not NO_DIAGNOSIS.search(hint), f"{answer!r:.80} gets {hint!r}, which is no diagnosis"


@each_student
def test_a_hint_is_about_one_mistake_only(student: Students) -> None:
    hints = [(first_hint(student, answer), fragment) for answer, fragment in student.wrong]
    for hint, own in hints:
        others = {other for _, other in hints if other != own and other in hint}
        assert not others, f"{hint!r} holds {others} beside {own!r}"


@each_student
def test_a_hint_does_not_hold_the_answer(student: Students) -> None:
    right = [re.escape(shown) for answer in student.right[:1] for shown in as_written(answer)]
    for answer, _ in student.wrong:
        hint = first_hint(student, answer)
        assert not any(re.search(rf"(?<![\w.,]){one}(?![\w]|[.,]\d)", hint) for one in right), hint


def as_written(answer: Any) -> list[str]:
    """The ways in which a hint could give a right number or a right word away."""
    if isinstance(answer, str):
        return [repr(answer), f'"{answer}"']
    if isinstance(answer, int | float) and abs(answer) >= 10:  # small numbers stand in hints for other reasons
        return [f"{answer:g}", f"{answer:,g}", f"{answer:.0f}", f"{answer:,.0f}"]
    return []


@each_student
def test_an_answer_of_a_wrong_type_has_its_hint(student: Students) -> None:
    for answer, fragment in student.wrong_type:
        hint = first_hint(student, answer)
        assert fragment in hint, f"{answer!r:.80} gets {hint!r}"


@each_student
def test_any_strange_answer_is_a_hint_and_no_error(student: Students) -> None:
    for name, strange in STRANGE.items():
        if not (wants_function(student) and callable(strange)):
            assert "Your answer raised" not in first_hint(student, strange), name


@each_student
def test_a_call_without_await_is_named(student: Students) -> None:
    unawaited = asynchronous()
    try:
        assert "await" in first_hint(student, unawaited)
    finally:
        unawaited.close()


@each_student
def test_numpy_scalars_are_numbers(student: Students) -> None:
    for answer in student.right:
        if isinstance(answer, int | float):
            scalars = [np.float64(answer), np.float32(answer)] + [np.int64(answer)] * (answer == int(answer))
            for scalar in scalars:
                assert check(student.key, scalar, **student.facts).status is Status.RIGHT, repr(scalar)


@each_student
def test_an_answer_that_is_not_written_yet_is_not_done(student: Students) -> None:
    for answer in (..., None, *student.unfinished):
        assert check(student.key, answer, **student.facts).status is Status.NOT_DONE, repr(answer)


def returning(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def raising(error: BaseException) -> Callable[..., Any]:
    def student(*_: object, **__: object) -> None:
        raise error

    return student


FUNCTIONS = [one for one in STUDENTS if wants_function(one)]


@pytest.mark.parametrize("student", FUNCTIONS, ids=repr)
def test_a_function_that_returns_something_strange_is_a_hint(student: Students) -> None:
    for name, strange in (STRANGE | {"none": None}).items():
        verdict = check(student.key, returning(strange), **student.facts)
        assert verdict.status is not Status.RIGHT, name
        assert_readable(verdict)
        assert "Your answer raised" not in verdict.text, name


@pytest.mark.parametrize(
    "wrong",
    [lambda: 1, raising(KeyError("x")), raising(ValueError("a\nb\n" * 500)), raising(SystemExit(1)), print, type],
    ids=["no parameters", "raises", "raises a long text", "exits", "built in", "a class"],
)
@pytest.mark.parametrize("student", FUNCTIONS, ids=repr)
def test_a_function_that_fails_is_a_hint(student: Students, wrong: Callable[..., Any]) -> None:
    verdict = check(student.key, wrong, **student.facts)
    assert verdict.status is not Status.RIGHT
    assert_readable(verdict)


@pytest.mark.parametrize("student", FUNCTIONS, ids=repr)
def test_an_async_function_is_named(student: Students) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no coroutine is made and left
        assert "async" in first_hint(student, asynchronous)
    assert inspect.iscoroutinefunction(asynchronous)
