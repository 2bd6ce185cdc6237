"""Answers to the exercises of 05."""

from collections.abc import Mapping
from typing import Any

Headers = Mapping[str, str]
BOUND = {"age_s": 4.0, "drain_per_s": 200.0, "arrival_per_s": 600.0}


def waiting(status: int, headers: Headers, attempt: int) -> float | None:
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


WRONG: list[tuple[str, Any, dict[str, Any], str]] = [
    ("05.age", 3, {}, "one of"),
    ("05.age", "size", {}, "one of"),
    ("05.age", "depth", {}, "nothing about time"),
    ("05.age", "acceptance latency", {}, "at once"),
    ("05.age", "drain rate", {}, "how much is before it"),
    ("05.bound", "800", BOUND, "without quotes"),
    ("05.bound", 2_400, BOUND, "λ, the arrival rate"),
    ("05.bound", 1_600, BOUND, "how fast the queue grows"),
    ("05.bound", 50, BOUND, "look at the units"),
    ("05.bound", 0.02, BOUND, "look at the units"),
    ("05.bound", 200, BOUND, "in one second"),
    ("05.bound", 900, BOUND, "too large"),
    ("05.deadline", None.__class__, {}, "one of"),
    ("05.deadline", "done late", {}, "without deadlines"),
    ("05.deadline", "lost", {}, "what became of it"),
    ("05.deadline", "refused", {}, "had been accepted"),
    ("05.deadline", "processing", {}, "ever started"),
    ("05.retry_after", 7, {}, "function"),
    ("05.retry_after", ignoring, {}, "Never retry earlier"),
    ("05.retry_after", asking_first, {}, "After a 202"),
    ("05.retry_after", always, {}, "After a 202"),
    ("05.retry_after", milliseconds, {}, "not in milliseconds"),
    ("05.retry_after", times_a_thousand, {}, "in seconds already"),
    ("05.retry_after", hours, {}, "far longer than the server"),
    ("05.retry_after", text, {}, "float()"),
    ("05.retry_after", never, {}, "would drop the job"),
    ("05.retry_after", trusting, {}, "without a Retry-After"),
    ("05.retry_after", impatient, {}, "a second or more of your own"),
    ("05.retry_after", repeating_mistakes, {}, "the same next time"),
    ("05.retry_after", lambda status: 1, {}, "TypeError"),
    ("05.retry_after", lambda status, headers, attempt: [1], {}, "not a number of seconds"),
    ("05.retry_after", lambda status, headers, attempt: float("nan"), {}, "Never retry earlier"),
]
RIGHT: list[tuple[str, Any, dict[str, Any]]] = [
    ("05.age", "oldest age", {}),
    ("05.age", " Oldest Age", {}),
    ("05.bound", 800, BOUND),
    ("05.deadline", "failed", {}),
    ("05.retry_after", waiting, {}),
]
NOT_DONE: list[tuple[str, Any, dict[str, Any]]] = [("05.retry_after", lambda status, headers, attempt: ..., {})]
