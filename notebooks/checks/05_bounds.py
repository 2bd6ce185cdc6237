"""Exercises of notebook 05: bounds, deadlines, and a client's back-off."""

import math
from collections.abc import Callable
from email.message import Message

from overload_demo.course.exercise import (
    MEASURED,
    NotDoneError,
    exercise,
    finite,
    function,
    multiple_choice,
    number,
    shown,
)
from overload_demo.lab import theory

LONGEST_S = 120.0  # chosen: jitter and back-off may add this much to the server's Retry-After


@exercise(
    "05.bound",
    "Little's law, L = λ W: a job that finds L jobs before it waits L ÷ μ seconds.",
    "Solve age = bound ÷ μ for the bound.",
)
def _bound(
    answer: object, *, age_s: float, promise_s: float, drain_per_s: float, arrival_per_s: float, best_per_s: float
) -> str:
    mistakes = {
        promise_s
        * drain_per_s: "That bound lets a job wait for all of promise_s, and then it still runs. Aim at age_s.",
        age_s * best_per_s: "1 ÷ delay_s is the best case; the worker was slower. Take the μ that was measured.",
        age_s * arrival_per_s: "You took λ, the arrival rate. How long a job waits depends on how fast jobs leave.",
        age_s * (arrival_per_s - drain_per_s): (
            "λ - μ is how fast the queue grows. A job waits for those before it, and they leave at μ."
        ),
        drain_per_s / age_s: "Jobs a second ÷ seconds is no number of jobs: look at the units.",
        age_s / drain_per_s: "Seconds ÷ (jobs a second) is no number of jobs: look at the units.",
        drain_per_s: "That is what leaves in one second. How many seconds may a job wait?",
    }
    return number(answer, theory.depth_for_age(age_s, drain_per_s), within=MEASURED, mistakes=mistakes)


multiple_choice(
    "05.age",
    "oldest age",
    {
        "depth": "1,000 jobs are one second at 1,000 jobs a second, and a quarter of an hour at one: depth alone shows "
        "nothing about time.",
        "acceptance latency": "A 202 comes at once, however long the queue is: you saw it in 04.",
        "drain rate": "A worker at full speed does not show how much is before it.",
    },
    "A promise is made in seconds.",
    "Which of them shows how long a client has been waiting already?",
)
multiple_choice(
    "05.deadline",
    "failed",
    {
        "done late": "That is the run without deadlines: the work is done, and its result is no longer wanted.",
        "lost": "A lost job is one whose end is unknown. The status of this job states what became of it.",
        "refused": "It had been accepted, with a 202. A refusal comes instead of the 202, at once.",
        "processing": "No worker ever started it: that is what the deadline saves.",
    },
    "Look at the status of the expired job above: it names its state and the reason.",
)


@exercise(
    "05.retry_after",
    "Only 429 and 503 call for a retry. The header holds whole seconds, as text.",
    "Return None when there is nothing to repeat; else float(headers['Retry-After']) or more.",
)
def _retry_after(answer: object) -> str:
    mistake = function(answer, "wait_before_retry(429, {'Retry-After': '3'}, attempt=1)")
    if mistake or not callable(answer):
        return mistake
    for status, seconds, attempt in ((429, 7, 1), (503, 2, 1), (429, 30, 3)):
        mistake = mistake or _waits_as_asked(answer, status, seconds, attempt)
    for status in (202, 200, 422, 404):
        mistake = mistake or _does_not_repeat(answer, status)
    return mistake or _has_a_default_wait(answer)


def _waits_as_asked(student: Callable[..., object], status: int, seconds: int, attempt: int) -> str:
    waited = student(status, _headers(seconds), attempt)
    asked = f"{status} with Retry-After: {seconds}"
    if waited is ...:
        raise NotDoneError
    if waited is None:
        return f"After {asked} the client may send again. Your function returned None: that would drop the job."
    if isinstance(waited, str):
        return f"For {asked} your function returned text, {shown(waited)}: turn it into a number with float()."
    wait_s = finite(waited)
    if isinstance(wait_s, str):
        return f"For {asked} your function returned {shown(waited)}, not a number of seconds."
    if math.isclose(wait_s, seconds / 1000):
        return f"For {asked} you wait {wait_s:g} s: the header is in seconds, not in milliseconds."
    if math.isclose(wait_s, seconds * 1000):
        return f"For {asked} you wait {wait_s:,.0f} s: the header is in seconds already."
    if not wait_s >= seconds:
        return f"For {asked} on attempt {attempt} you wait {wait_s:g} s. Never retry earlier than requested."
    if wait_s > seconds + LONGEST_S:
        return (
            f"For {asked} on attempt {attempt} you wait {wait_s:,.0f} s: that is far longer than the server requires."
        )
    return ""


def _does_not_repeat(student: Callable[..., object], status: int) -> str:
    waited = student(status, _headers(1 if status == 202 else None), 1)
    if waited is None:
        return ""
    if status == 202:
        return (
            f"After a 202 your function returned {shown(waited)}: the client would send the job again, and it would be "
            "done twice. Its Retry-After is the time to ask for the status. Return None."
        )
    return (
        f"After a {status} your function returned {shown(waited)}. The answer will be the same next time: return None."
    )


def _has_a_default_wait(student: Callable[..., object]) -> str:
    try:
        waited = student(503, _headers(None), 1)
    except (TypeError, KeyError, ValueError):
        return "A 503 from a proxy before the API may come without a Retry-After: use a wait of your own."
    wait_s = 0.0 if waited is None else finite(waited)
    if not isinstance(wait_s, str) and 0 < wait_s <= LONGEST_S:
        return ""
    return f"For a 503 without a Retry-After your function returned {shown(waited)}; wait a second or more of your own."


def _headers(retry_after_s: int | None) -> Message:
    """Return headers as an HTTP client has them: names in any case, None for a missing one."""
    headers = Message()
    headers["Content-Type"] = "application/json"
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return headers
