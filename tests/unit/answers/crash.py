"""Answers to the exercises of 07."""

from typing import Any

JOBS = {"job_times_s": [1.0, 1.0, 2.0, 14.0], "back_within_s": 30.0}
KILLS = {"kills": 3, "batch_s": 0.05, "job_s": 0.005}


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


def two_arguments(ledger: dict[Any, Any], job_id: str) -> None:
    ledger[job_id] = 1.0


WRONG: list[tuple[str, Any, dict[str, Any], str]] = [
    ("07.idempotent", 5.0, {}, "a function, called like charge(ledger, job_id, amount)"),
    ("07.idempotent", two_arguments, {}, "TypeError"),
    ("07.idempotent", elsewhere, {}, "still empty"),
    ("07.idempotent", by_amount, {}, "same amount"),
    ("07.idempotent", total, {}, "running total"),
    ("07.idempotent", total_and_mark, {}, "more than one entry a job"),
    ("07.idempotent", wrong_value, {}, "not the amount"),
    ("07.idempotent", add, {}, "charges again"),
    ("07.idempotent", mark_then_charge, {}, "Killed after its first write"),
    ("07.lease", "20", JOBS, "without quotes"),
    ("07.lease", 0, JOBS, "more than 0"),
    ("07.lease", 2, JOBS, "most jobs"),
    ("07.lease", 14.0, JOBS, "a second worker starts it too"),
    ("07.lease", 300, JOBS, "Too long"),
    ("07.duplicates", True, KILLS, "a number"),
    ("07.duplicates", 0, KILLS, "can promise zero"),
    ("07.duplicates", 3, KILLS, "Not only the running job"),
    ("07.duplicates", 10, KILLS, "one kill"),
    ("07.duplicates", 2_000, KILLS, "jobs it has leased"),
    ("07.duplicates", 31, KILLS, "too large"),
    ("07.promise", "exactly once", {}, "harmless"),
    ("07.promise", "at most once", {}, "never charged"),
    ("07.promise", 1, {}, "one of"),
    ("07.promise", "always", {}, "one of"),
]
RIGHT: list[tuple[str, Any, dict[str, Any]]] = [
    ("07.idempotent", assign, {}),
    ("07.idempotent", look_first, {}),
    ("07.idempotent", set_default, {}),
    ("07.idempotent", update, {}),
    ("07.lease", 20, JOBS),
    ("07.lease", 14.5, JOBS),
    ("07.lease", 30, JOBS),
    ("07.duplicates", 30, KILLS),
    ("07.promise", "at least once", {}),
    ("07.promise", " At Least Once ", {}),
]
NOT_DONE: list[tuple[str, Any, dict[str, Any]]] = [("07.idempotent", stub, {})]
