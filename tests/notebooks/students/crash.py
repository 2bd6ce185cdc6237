"""Students of 07."""

from typing import Any

from tests.notebooks.students import Students


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


def own_key(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    ledger[job_id, amount] = amount


def unless_the_amount_is_there(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    if amount not in ledger.values():
        ledger[job_id] = amount


def quoted(ledger: dict[Any, Any], job_id: str, amount: float) -> None:
    ledger["job_id"] = amount


def two_arguments(ledger: dict[Any, Any], job_id: str) -> None:
    ledger[job_id] = 1.0


STUDENTS = [
    Students(
        "07.idempotent",
        right=[assign, look_first, set_default, update, own_key],
        wrong=[
            (elsewhere, "still empty"),
            (by_amount, "same amount"),
            (unless_the_amount_is_there, "same amount"),
            (quoted, "running total"),
            (total, "running total"),
            (total_and_mark, "more than one entry a job"),
            (wrong_value, "not the amount"),
            (add, "charges again"),
            (mark_then_charge, "Killed after its first write"),
        ],
        wrong_type=[(5.0, "a function, called like charge(ledger, job_id, amount)"), (two_arguments, "TypeError")],
        unfinished=[stub],
    ),
    Students(
        "07.lease",
        facts={"job_times_s": [1.0, 1.0, 2.0, 14.0], "back_within_s": 30.0},
        right=[20, 14.5, 30],
        wrong=[
            (0, "more than 0"),
            (2, "most jobs"),
            (14.0, "a second worker starts it too"),
            (300, "Too long"),
        ],
        wrong_type=[("20", "without quotes"), ("20 s", "without quotes")],
    ),
    Students(
        "07.duplicates",
        facts={"kills": 3, "batch_s": 0.05, "job_s": 0.005},
        right=[30],
        wrong=[
            (0, "can promise zero"),
            (3, "Not only the running job"),
            (10, "one kill"),
            (27, "is repeated too"),
            (0.15, "seconds of work"),
            (0.3, "Upside down"),
            (2_000, "jobs it has leased"),
        ],
        wrong_type=[(True, "a number"), ("30", "without quotes")],
    ),
    Students(
        "07.promise",
        right=["at least once", " At Least Once "],
        wrong=[("exactly once", "harmless"), ("at most once", "never charged"), ("best effort", "without a trace")],
        wrong_type=[(1, "one of"), ("always", "one of")],
    ),
]
