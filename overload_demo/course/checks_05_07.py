"""Exercises of the notebooks 05 and 07: bounds and deadlines, a client's back-off, leases, idempotency."""

import math
import numbers
from collections.abc import Callable, Sequence
from email.message import Message
from typing import Any

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
def _bound(answer: object, *, age_s: float, drain_per_s: float, arrival_per_s: float) -> str:
    mistakes = {
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
        return f"After {asked} the client may send the request again; None would drop the job."
    if isinstance(waited, str):
        return f"For {asked} your function returned text, {shown(waited)}: turn it into a number with float()."
    if isinstance(waited, bool) or not isinstance(waited, numbers.Real):
        return f"For {asked} your function returned {shown(waited)}, not a number of seconds."
    wait_s = float(waited)
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
    if student(status, _headers(1 if status == 202 else None), 1) is None:
        return ""
    if status == 202:
        return (
            "After a 202 you would send the job again, and it would be done twice: its Retry-After is the time to ask "
            "for the status. Return None."
        )
    return f"A {status} will be the same next time: there is nothing to wait for. Return None."


def _has_a_default_wait(student: Callable[..., object]) -> str:
    try:
        waited = student(503, _headers(None), 1)
    except (TypeError, KeyError, ValueError):
        return "A 503 from a proxy before the API may come without a Retry-After: use a wait of your own."
    if isinstance(waited, numbers.Real) and 0 < float(waited) <= LONGEST_S:
        return ""
    return f"For a 503 without a Retry-After your function returned {shown(waited)}; wait a second or more of your own."


def _headers(retry_after_s: int | None) -> Message:
    """Return headers as an HTTP client has them: names in any case, None for a missing one."""
    headers = Message()
    headers["Content-Type"] = "application/json"
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return headers


_CHARGES = {"job_a1": 5.0, "job_b2": 5.0, "job_c3": 2.5}  # two jobs of the same amount are two charges
_AGAIN = ("job_b2", "job_a1", "job_a1", "job_c3", "job_b2", "job_c3", "job_b2")


@exercise(
    "07.idempotent",
    "Ask of each line: what if the worker is killed right after it, and the function is called again?",
    "One assignment is enough: the job's id is the key, the amount is the value.",
)
def _idempotent(answer: Any) -> str:
    if not_callable := function(answer, "charge(ledger, job_id, amount)"):
        return not_callable
    if _is_stub(answer):
        raise NotDoneError
    ledger = _Ledger()
    for job_id, amount in _CHARGES.items():
        answer(ledger, job_id, amount)
    if mistake := _wrong_entries(ledger):
        return mistake
    for job_id in _AGAIN:
        answer(ledger, job_id, _CHARGES[job_id])
    if ledger != _CHARGES:
        return (
            "Right for jobs done once. Called again with the same job_id, it charges again: adding is not idempotent."
        )
    ledger = _Ledger()
    for job_id, amount in _CHARGES.items():
        ledger.writes_left = 1
        try:
            answer(ledger, job_id, amount)
        except _KilledError:
            ledger.writes_left = None
            answer(ledger, job_id, amount)
    if ledger != _CHARGES:
        return "Killed after its first write and called again, it leaves a wrong amount: the whole charge is one write."
    return ""


def _wrong_entries(ledger: dict[Any, Any]) -> str:
    """Return a hint unless the ledger is right after each job was done once."""
    if not ledger:
        return "After three jobs the ledger is still empty: write into the ledger that is passed in."
    if set(ledger) & set(_CHARGES.values()):
        return "Two different jobs with the same amount became one entry: the amount does not identify the job."
    if not set(ledger) >= set(_CHARGES):
        return "The ledger has no entry for each job: a running total does not show whether a job is already in it."
    if set(ledger) > set(_CHARGES):
        return (
            "The ledger holds more than one entry a job: its sum is what customers pay, and two entries can disagree."
        )
    return "" if ledger == _CHARGES else "Each job was done once, and an entry is not the amount of its job."


class _KilledError(BaseException):
    """The simulated death of the worker; no ``except Exception`` of a student catches it."""


def _counted(write: Callable[..., Any]) -> Callable[..., Any]:
    def method(ledger: "_Ledger", *arguments: Any, **named: Any) -> Any:
        returned = write(ledger, *arguments, **named)
        if ledger.writes_left is not None:
            ledger.writes_left -= 1
            if ledger.writes_left == 0:
                raise _KilledError
        return returned

    return method


class _Ledger(dict[Any, Any]):
    """A dict that simulates a kill right after ``writes_left`` writes."""

    writes_left: int | None = None
    __setitem__, setdefault, update = _counted(dict.__setitem__), _counted(dict.setdefault), _counted(dict.update)


def _is_stub(answer: Any) -> bool:
    def charge(ledger: object, job_id: object, amount: object) -> None: ...

    code = getattr(answer, "__code__", None)
    return code is not None and code.co_code == charge.__code__.co_code


@exercise(
    "07.lease",
    "Two bounds: below the lower one jobs are repeated without a crash, above the upper one a crash is felt too long.",
    "Anything between the longest job and the promised time is right; leave the longest job some room.",
)
def _lease(answer: Any, *, job_times_s: Sequence[float], back_within_s: float) -> str:
    value = finite(answer)
    if isinstance(value, str):
        return value
    longest_s, mean_s = max(job_times_s), sum(job_times_s) / len(job_times_s)
    if value <= 0:
        return "A lease is a time, more than 0 seconds."
    if value <= mean_s:
        return f"Too short: the mean job takes {mean_s:g} s, so most jobs would lose their lease while they run."
    if value <= longest_s:
        return (
            f"Too short: the job of {longest_s:g} s loses its lease while it runs, and a second worker starts it too, "
            "without any crash. The mean or the median is not enough."
        )
    if value > back_within_s:
        return (
            f"Too long: the jobs of a worker that is gone wait {value:g} s until their lease ends, and "
            f"{back_within_s:g} s are promised."
        )
    return ""


@exercise(
    "07.duplicates",
    "A job may be repeated from the moment it is leased and started until its result is in the store.",
    "The worker leases as many jobs as fit into batch_s: batch_s / job_s. Each kill can hit one batch.",
)
def _duplicates(answer: Any, *, kills: int, batch_s: float, job_s: float) -> str:
    batch = batch_s / job_s
    value = finite(answer)
    if not isinstance(value, str) and value >= 5 * kills * batch:
        return "Far too many. A worker's death affects only the jobs it has leased, not those that wait in the queue."
    mistakes = {
        kills: "Not only the running job: those before it in the batch are done, and their results not stored yet.",
        batch: "That is the bound for one kill.",
        0: "No queue can promise zero duplicates: the effect and the stored result are two steps.",
    }
    return number(answer, kills * batch, mistakes=mistakes)


multiple_choice(
    "07.promise",
    "at least once",
    {
        "at most once": "Then an interrupted job would not be repeated: the first design, with jobs never charged.",
        "exactly once": "The second ledger contradicts it: jobs ran twice. The third is right because its handler "
        "makes a repeat harmless; the queue still delivered some jobs twice.",
    },
    "Look at the ledger of the design whose accepted jobs were all charged, and at its kills.",
)
