"""Exercises of notebook 07: an idempotent handler, leases, and jobs that run twice."""

from collections.abc import Callable, Sequence
from typing import Any

from overload_demo.course.exercise import NotDoneError, exercise, finite, function, multiple_choice, number

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
    once = dict(ledger)
    for job_id in _AGAIN:
        answer(ledger, job_id, _CHARGES[job_id])
    if ledger != once:
        return (
            "Right for jobs done once. Called again with the same job_id, it charges again: adding is not idempotent."
        )
    return _stands_a_kill(answer, once)


def _stands_a_kill(answer: Any, once: dict[Any, Any]) -> str:
    ledger = _Ledger()
    for job_id, amount in _CHARGES.items():
        ledger.writes_left = 1
        try:
            answer(ledger, job_id, amount)
        except _KilledError:
            ledger.writes_left = None
            answer(ledger, job_id, amount)
    if once.keys() - ledger.keys():
        return "The call after a kill runs in a new process, without your variables: only the ledger is still there."
    if ledger != once:
        return "Killed after its first write and called again, it leaves a wrong amount: the whole charge is one write."
    return ""


def _wrong_entries(ledger: dict[Any, Any]) -> str:
    """Return a hint unless the ledger is right after each job was done once; any key of a job is right."""
    if not ledger:
        return "After three jobs the ledger is still empty: write into the ledger that is passed in."
    if set(ledger) & set(_CHARGES.values()) or len(ledger) == 2:
        return "Two different jobs with the same amount became one entry: the amount does not identify the job."
    if len(ledger) < len(_CHARGES):
        return (
            "One entry for three jobs: a running total, or a key that is always the same, does not show whether a job "
            "is already in it."
        )
    if len(ledger) > len(_CHARGES):
        return (
            "The ledger holds more than one entry a job: its sum is what customers pay, and two entries can disagree."
        )
    amounts = list(_CHARGES.values())
    for value in ledger.values():
        if value in amounts:
            amounts.remove(value)
    return "Each job was done once, and an entry is not the amount of its job." if amounts else ""


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
        kills * (batch - 1): "Nearly: the job that runs at the kill is repeated too.",
        kills * batch_s: "Those are seconds of work. How many jobs is that?",
        kills * job_s / batch_s: "Upside down: how many jobs of job_s fit into batch_s?",
        0: "No queue can promise zero duplicates: the effect and the stored result are two steps.",
    }
    return number(answer, kills * batch, mistakes=mistakes)


multiple_choice(
    "07.promise",
    "at least once",
    {
        "at most once": "Then an interrupted job would not be repeated: the first design, with jobs never charged.",
        "best effort": "Then a job could be lost without a trace. Of which accepted job does the store know no end?",
        "exactly once": "The second ledger contradicts it: jobs ran twice. The third is right because its handler "
        "makes a repeat harmless; the queue still delivered some jobs twice.",
    },
    "Look at the ledger of the design whose accepted jobs were all charged, and at its kills.",
)
