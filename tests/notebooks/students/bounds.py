"""Students of 05."""

from collections.abc import Mapping

from tests.notebooks.students import Students

Headers = Mapping[str, str]


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


def zero(status: int, headers: Headers, attempt: int) -> float:
    return float(headers["Retry-After"] or 1) if status in (429, 503) else 0


STUDENTS = [
    Students(
        "05.age",
        right=["oldest age", " Oldest Age"],
        wrong=[
            ("depth", "nothing about time"),
            ("acceptance latency", "at once"),
            ("drain rate", "how much is before it"),
        ],
        wrong_type=[(3, "one of"), ("size", "one of")],
    ),
    Students(
        "05.bound",
        facts={"age_s": 4.0, "promise_s": 5.0, "drain_per_s": 200.0, "arrival_per_s": 600.0, "best_per_s": 250.0},
        right=[800],
        wrong=[
            (2_400, "λ, the arrival rate"),
            (1_600, "how fast the queue grows"),
            (50, "Jobs a second ÷ seconds"),
            (0.02, "Seconds ÷ (jobs a second)"),
            (200, "in one second"),
            (1_000, "the best case"),
            (80, "count the zeros"),
            (-800, "The sign"),
        ],
        wrong_type=[("800", "without quotes"), ("800 jobs", "without quotes")],
    ),
    Students(
        "05.deadline",
        right=["failed", "Failed"],
        wrong=[
            ("done late", "without deadlines"),
            ("lost", "what became of it"),
            ("refused", "had been accepted"),
            ("processing", "ever started"),
        ],
        wrong_type=[(str, "one of"), (503, "one of")],
    ),
    Students(
        "05.retry_after",
        right=[waiting],
        wrong=[
            (ignoring, "Never retry earlier"),
            (asking_first, "After a 202"),
            (always, "After a 202"),
            (zero, "After a 202"),
            (milliseconds, "not in milliseconds"),
            (times_a_thousand, "in seconds already"),
            (hours, "far longer than the server"),
            (never, "would drop the job"),
            (trusting, "from a proxy"),
            (impatient, "a second or more of your own"),
            (repeating_mistakes, "the same next time"),
        ],
        wrong_type=[
            (7, "a function"),
            (text, "float()"),
            (lambda status: 1, "TypeError"),
            (lambda status, headers, attempt: [1], "not a number of seconds"),
        ],
        unfinished=[lambda status, headers, attempt: ...],
    ),
]
