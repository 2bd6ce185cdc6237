"""Exercises of notebook 08: the smallest batch, the free quota, and what a store promises."""

import math

from overload_demo.course.exercise import MEASURED, exercise, finite, multiple_choice, number
from overload_demo.lab import theory
from overload_demo.lab.report import FREE_COMMANDS_PER_MONTH, Bill

DAY_S = 86_400
_BOTH = "So many jobs arrive during a call; but there are two calls in flight, and each takes a part."


@exercise(
    "08.batch",
    "During one call λ x call_s jobs arrive, and two calls share them.",
    "math.ceil(λ x seconds a call ÷ 2)",
)
def _batch(answer: object, *, arrival_per_s: float, call_s: float) -> str:
    right, during = theory.smallest_batch(arrival_per_s, call_s), arrival_per_s * call_s
    value = finite(answer)
    if isinstance(value, str):
        return value
    if value == right:
        return ""
    if value == right - 1 or (value < right and math.isclose(value, during / 2, rel_tol=MEASURED)):
        return "A call carries whole jobs, and with fewer than that it would not keep up: round up."
    mistakes = {
        math.ceil(during): _BOTH,
        during: _BOTH,
        2 * during: "Two calls in flight halve what one has to carry; you doubled it.",
        arrival_per_s / 2: "That is for calls of one second. How long does one take?",
        2 / call_s: "That is how many calls are made in a second. How many jobs must each of them carry?",
        during * 1000 / 2: "You counted a call in milliseconds, and λ in seconds.",
    }
    if value > right and value == int(value) and not any(math.isclose(value, wrong) for wrong in mistakes):
        return f"A limit of {value:,.6g} keeps up as well. Asked is the smallest one."
    return number(answer, right, within=1e-6, mistakes=mistakes)


@exercise(
    "08.quota",
    "The quota is in commands; each job uses bill.commands_per_job[1] of them.",
    "report.FREE_COMMANDS_PER_MONTH ÷ commands a job.",
)
def _quota(answer: object, *, bill: Bill, plain_bill: Bill) -> str:
    least, most = bill.commands_per_job
    mistakes = {
        FREE_COMMANDS_PER_MONTH / least: "You counted a script as one command, the cheaper way. Plan for the dearer.",
        FREE_COMMANDS_PER_MONTH * bill.jobs / bill.calls: "You divided by REST calls. Commands are billed.",
        FREE_COMMANDS_PER_MONTH / plain_bill.commands_per_job[1]: "That is the plain recipe. Take group commit: bill.",
        FREE_COMMANDS_PER_MONTH * most: "Commands x commands a job are no jobs: divide.",
        FREE_COMMANDS_PER_MONTH / bill.most_commands: "bill.most_commands are those of all its jobs, not of one.",
        FREE_COMMANDS_PER_MONTH: "So many commands; a job takes several.",
        most / FREE_COMMANDS_PER_MONTH: "Upside down: that is the share of the quota that one job takes.",
    }
    return number(answer, FREE_COMMANDS_PER_MONTH / most, mistakes=mistakes)


@exercise(
    "08.idle",
    "One command a second: how many seconds do the free commands last?",
    "Free commands ÷ 86,400 seconds a day.",
)
def _idle(answer: object, *, free_commands: int, commands_per_s: float) -> str:
    seconds = free_commands / commands_per_s
    mistakes = {
        seconds: "These are seconds; the question asks for days.",
        seconds / 60: "These are minutes; the question asks for days.",
        seconds / 3600: "These are hours; the question asks for days.",
        seconds / 30: "That is how many commands a day the quota allows. How many does the worker send?",
        30 * DAY_S / seconds: "That is how many times the quota it needs in a month. When is the first one used up?",
        DAY_S / seconds: "Upside down: that is the share of the quota that one day takes.",
    }
    return number(answer, seconds / DAY_S, mistakes=mistakes)


multiple_choice(
    "08.durability",
    "acknowledged by the store",
    {
        "on disk": "The store says unknown: your API cannot promise more than the store does. `always` would allow it.",
        "lost within a second": "That is everysec, of the embedded store: a known bound. Here no bound is known.",
        "in memory only": "Too little: the vendor documents that writes go to block storage as well, not by when.",
    },
    "What does the API know at the moment it sends the 202?",
    "It has a reply of the store, and nothing else.",
)
