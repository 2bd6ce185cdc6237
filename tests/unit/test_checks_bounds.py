"""Exercises of 05: what counts as right, and which mistake gets which hint."""

from collections.abc import Callable, Mapping

import pytest

from overload_demo.course import check

FACTS = {"age_s": 4.0, "drain_per_s": 200.0, "arrival_per_s": 600.0}
Headers = Mapping[str, str]


def given(key: str) -> dict[str, float]:
    return FACTS if key == "05.bound" else {}


@pytest.mark.parametrize("key", ["05.age", "05.bound", "05.retry_after", "05.deadline"])
def test_an_empty_cell_is_not_done(key: str) -> None:
    assert check(key, ..., **given(key)).status == "not done"


@pytest.mark.parametrize(
    ("key", "answer"),
    [("05.age", "oldest age"), ("05.age", " Oldest Age"), ("05.bound", 800), ("05.deadline", "failed")],
)
def test_the_right_answer_is_right(key: str, answer: object) -> None:
    assert check(key, answer, **given(key)).status == "right"


@pytest.mark.parametrize(
    ("key", "wrong", "hint"),
    [
        ("05.age", 3, "one of"),
        ("05.age", "size", "one of"),
        ("05.age", "depth", "nothing about time"),
        ("05.age", "acceptance latency", "at once"),
        ("05.age", "drain rate", "how much is before it"),
        ("05.bound", "800", "without quotes"),
        ("05.bound", 2_400, "λ, the arrival rate"),
        ("05.bound", 1_600, "how fast the queue grows"),
        ("05.bound", 50, "look at the units"),
        ("05.bound", 0.02, "look at the units"),
        ("05.bound", 200, "in one second"),
        ("05.bound", 900, "too large"),
        ("05.deadline", None.__class__, "one of"),
        ("05.deadline", "done late", "without deadlines"),
        ("05.deadline", "lost", "what became of it"),
        ("05.deadline", "refused", "had been accepted"),
        ("05.deadline", "processing", "ever started"),
        ("05.retry_after", 7, "function"),
    ],
)
def test_a_usual_mistake_gets_its_own_hint(key: str, wrong: object, hint: str) -> None:
    verdict = check(key, wrong, **given(key))

    assert verdict.status == "not yet"
    assert hint in verdict.text


def polite(status: int, headers: Headers, attempt: int) -> float | None:
    if status not in (429, 503):
        return None
    return float(headers.get("retry-after") or min(30, 2**attempt)) * 1.2


def ignoring(status: int, headers: Headers, attempt: int) -> float | None:
    return 2.0**attempt if status in (429, 503) else None


def asking_first(status: int, headers: Headers, attempt: int) -> float | None:
    return float(headers["Retry-After"]) if "Retry-After" in headers else 1.0 if status == 503 else None


def always(status: int, headers: Headers, attempt: int) -> float:
    return float(headers["Retry-After"] or 1)


def milliseconds(status: int, headers: Headers, attempt: int) -> float | None:
    return int(headers["Retry-After"]) / 1000 if status in (429, 503) else None


def times_a_thousand(status: int, headers: Headers, attempt: int) -> float | None:
    return int(headers["Retry-After"]) * 1000 if status in (429, 503) else None


def hours(status: int, headers: Headers, attempt: int) -> float | None:
    return int(headers["Retry-After"]) + 3600.0 if status in (429, 503) else None


def text(status: int, headers: Headers, attempt: int) -> str | None:
    return headers["Retry-After"] if status in (429, 503) else None


def never(status: int, headers: Headers, attempt: int) -> None:
    return None


def trusting(status: int, headers: Headers, attempt: int) -> float | None:
    return float(headers["Retry-After"]) if status in (429, 503) else None


def impatient(status: int, headers: Headers, attempt: int) -> float | None:
    return float(headers.get("Retry-After") or 0) if status in (429, 503) else None


def repeating_mistakes(status: int, headers: Headers, attempt: int) -> float | None:
    return None if status < 300 else float(headers.get("Retry-After") or 1)


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (ignoring, "Never come back earlier"),
        (asking_first, "After a 202"),
        (always, "After a 202"),
        (milliseconds, "not in milliseconds"),
        (times_a_thousand, "in seconds already"),
        (hours, "giving up"),
        (text, "float()"),
        (never, "would give the job up"),
        (trusting, "without a Retry-After"),
        (impatient, "a second or more of your own"),
        (repeating_mistakes, "the same next time"),
        (lambda status: 1, "TypeError"),
        (lambda status, headers, attempt: [1], "not a number of seconds"),
        (lambda status, headers, attempt: float("nan"), "Never come back earlier"),
    ],
)
def test_a_client_that_ignores_the_header_gets_a_hint(student: Callable[..., object], hint: str) -> None:
    verdict = check("05.retry_after", student)

    assert verdict.status == "not yet"
    assert hint in verdict.text


def test_a_polite_client_is_right() -> None:
    assert check("05.retry_after", polite).status == "right"


def test_a_function_that_is_not_written_yet_is_not_done() -> None:
    assert check("05.retry_after", lambda status, headers, attempt: ...).status == "not done"
