"""Exercises of notebook 03: a corrected log, the tail, invalid reports, and what a comparison shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from overload_demo.course.exercise import EXACT, called, choice, exercise, function, multiple_choice, number, shown
from overload_demo.lab import theory
from overload_demo.lab.measuring import Pairs, corrected, sign_test
from overload_demo.lab.naive_api import LoadStep
from overload_demo.load import LoadSummary

CALL = "correct([0.004, 0.35], 0.1)"
SIGNIFICANT = 0.05  # the customary limit


@exercise(
    "03.correct",
    "A client that waits t leaves out the requests due after one interval, after two, and so on.",
    "For each t keep t, then add t - interval_s, t - 2 * interval_s, ... while the result is at least interval_s.",
)
def _correct(answer: object) -> str:
    if mistake := function(answer, CALL):
        return mistake
    for times_s, interval_s in (([0.004, 0.35], 0.1), ([0.003, 2.03, 0.005, 0.12, 0.007], 0.05), ([0.02], 0.05)):
        if mistake := _adds_what_was_left_out(called(answer, times_s, interval_s), times_s, interval_s):
            return mistake
    return ""


def _adds_what_was_left_out(returned: Any, times_s: list[float], interval_s: float) -> str:
    call = f"For the times {times_s} and an interval of {interval_s:g} s"
    try:
        found = np.sort(np.array([float(one) for one in returned]))
    except (TypeError, ValueError):
        return f"{call} your function returned {shown(returned)}, not a list of times."
    right = np.sort(corrected(times_s, interval_s))
    if found.shape == right.shape and np.allclose(found, right):
        return ""
    added = [one for one in found.tolist() if not np.isclose(one, times_s).any()]
    if any(not np.isclose(one, found).any() for one in times_s):
        return f"{call} a measured time is missing in your list: keep all of them, and add to them."
    if found.size == len(times_s):
        return f"{call} your function added nothing."
    if not added:
        return f"{call} you repeat measured times. A request that was due later would have waited for less."
    if max(added) > max(times_s):
        return f"{call} you add a time longer than any measured: a later request waits for less, not for longer."
    if min(added) < interval_s:
        return f"{call} you add {min(added):.3g} s. HdrHistogram's rule ends at the interval: add no shorter time."
    if found.size < right.size:
        return f"{call} {right.size - len(times_s)} requests were left out, and you add {found.size - len(times_s)}."
    return f"{call} your function returned {shown([round(one, 4) for one in found.tolist()])}."


@exercise(
    "03.page",
    "The opposite is easier: the share of pages none of whose requests is slow.",
    "One request is not slow with probability 0.99, all of them with 0.99 ** requests. Subtract that from 1.",
)
def _page(answer: object, *, requests: int) -> str:
    right = theory.seen_by(0.01, requests)
    mistakes = {
        0.01: "That is the share of slow requests. A page needs many of them to be fast.",
        0.01 * requests: "The sum counts a page with two slow requests twice. With 200 requests it would be above 1.",
        1.0 * requests: "In percent, and added up: with 200 requests it would be above 100 %.",
        1 - right: "That is the share of pages without any slow request.",
        0.01**requests: "That is the share of pages all of whose requests are slow.",
        100 * right: "The size is right, as a percentage: write a share between 0 and 1.",
    }
    return number(answer, right, within=0.02, mistakes=mistakes)


multiple_choice(
    "03.step",
    "operating system",
    {
        "api": "The API stood still for less than half a second. A request that waited for it alone took no longer.",
        "store": "The store was never stopped. A request reaches it only after the API has accepted the connection.",
        "generator": "Its lag was small: it sent on time. The delay began when the attempt to connect had been sent.",
        "worker": "A 202 does not wait for a worker.",
    },
    "These requests needed a new connection, while the accept queue was full.",
    "What repeats an attempt to connect that got no reply, and after how long?",
)


@exercise(
    "03.invalid",
    "A report is invalid when its numbers are the generator's own, not when they are bad.",
    "Compare the lags: how late did the requests leave? A server cannot cause a lag.",
)
def _invalid(answer: object, *, reports: Mapping[str, LoadSummary]) -> str:
    if not isinstance(answer, tuple) or len(answer) != 2:
        return f"The answer is two words, a report and a number: which, why = ..., not {shown(answer)}."
    bound = [name for name, one in reports.items() if one.verdict != "valid"]
    if not bound:
        return f"All of these reports are valid on this machine: {', '.join(reports)}. Raise `too_fast_per_s`."
    valid = {name: f"In {name} {one.reason}: its times are the server's." for name, one in reports.items()}
    right = answer[0] if answer[0] in bound else bound[0]
    if mistake := choice(answer[0], right, {name: hint for name, hint in valid.items() if name not in bound}):
        return mistake
    return choice(
        answer[1],
        "lag",
        {
            "p99": "A high p99 may well be the server's. Which number is about the generator alone?",
            "mode": "An open loop is the right mode here. Did this one keep its schedule?",
            "planned": "Few requests make a weak report, but not an invalid one.",
        },
    )


@exercise(
    "03.pairs",
    "If A and B are equal, B wins a pair with probability 1/2, and n pairs with 1/2 to the power of n.",
    "A may win all pairs just as well: find the smallest n with 2 * 0.5 ** n < 0.05.",
)
def _pairs(answer: object) -> str:
    mistakes: dict[float, str] = {
        5: "0.5 ** 5 = 0.031 is the chance that B wins all. A could win all just as well: together 0.063.",
        4: "0.5 ** 4 = 0.063: chance alone does this more often than in 5 % of the cases.",
        20: "1 in 20 is the limit of the probability. How fast does 0.5 ** n get there?",
        1: "One pair has a winner always, also if A and B are the same program.",
        3: "Chance alone makes one of the two win three pairs in a row in a quarter of the cases.",
    }
    return number(answer, 6, within=EXACT, mistakes=mistakes)


@exercise(
    "03.claim",
    "sign_test(pairs.b_wins, pairs.ratios.size) is the probability that chance alone splits so unevenly.",
    "Below 0.05 a winner is shown; otherwise nothing is, and also not that A and B are equal.",
)
def _claim(answer: object, *, pairs: Pairs) -> str:
    count, wins = pairs.ratios.size, pairs.b_wins
    chance = sign_test(wins, count)
    winner, loser = ("B is faster", "A is faster") if 2 * wins > count else ("A is faster", "B is faster")
    fact = (
        f"B was faster in {wins} of {count} pairs. Chance alone splits them so unevenly with probability {chance:.2g}"
    )
    equal = (
        "More pairs would be needed to show that a difference is small; no number of pairs shows that there is none."
    )
    if chance < SIGNIFICANT:
        others = {loser: f"{fact}, and the winner is the other one.", "not shown": f"{fact}: that is below 0.05."}
        return choice(answer, winner, others | {"they are equal": f"{fact}: that is below 0.05."})
    others = {one: f"{fact}: that is not below 0.05." for one in (winner, loser)}
    return choice(answer, "not shown", others | {"they are equal": f"{fact}. {equal}"})


@exercise(
    "03.knee",
    "Look at the p99 of each step, from the lowest rate up: which is the last before the first one above the promise?",
    "The p99 of a step is step.summary.response_time.p99_s.",
)
def _knee(answer: object, *, steps: Sequence[LoadStep], promise_s: float) -> str:
    right, by_median = (_highest_within(steps, promise_s, name) for name in ("p99_s", "p50_s"))
    best = max(steps, key=lambda one: one.goodput_per_s).offered_per_s
    kept = [one for one in steps if _highest_within([one], promise_s, "p99_s")]
    mistakes = {
        max((one.offered_per_s for one in kept), default=0.0): "It was kept at this rate, but not at each lower one.",
        by_median: "At this rate the median keeps the promise. One client in a hundred is the p99.",
        theory.capacity_per_s(
            steps[0].delay_s
        ): "That is the capacity. Close to it the queue in front of the slot grows.",
        best: "That is the rate with the most answers. Look at the lower panel: how long do they take?",
        100
        * right
        / theory.capacity_per_s(steps[0].delay_s): "Write the offered rate, not a percentage of the capacity.",
        promise_s: "That is the promise, in seconds. At which offered rate is it still kept?",
    }
    return number(answer, right, within=EXACT, mistakes=mistakes)


def _highest_within(steps: Sequence[LoadStep], promise_s: float, name: str) -> float:
    """Return the highest offered rate up to which every step kept the promise; 0 if the lowest did not."""
    kept = 0.0
    for one in sorted(steps, key=lambda one: one.offered_per_s):
        times = one.summary.response_time
        if times is None or getattr(times, name) > promise_s:
            break
        kept = one.offered_per_s
    return kept
