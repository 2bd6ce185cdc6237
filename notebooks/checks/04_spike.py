"""Exercises of notebook 04: a spike absorbed, and every job accounted for."""

import math
from collections.abc import Collection, Mapping

from overload_demo.course.exercise import (
    MEASURED,
    READ_OFF,
    called,
    exercise,
    finite,
    function,
    multiple_choice,
    number,
    shown,
)
from overload_demo.lab.result import SpikeResult


@exercise(
    "04.hours",
    "The worker does one job at a time: how many seconds are all of them together?",
    "jobs x seconds a job ÷ 3,600 seconds an hour.",
)
def _hours(answer: object, *, jobs: int, seconds_a_job: float) -> str:
    seconds = jobs * seconds_a_job
    mistakes = {
        seconds: "These are seconds; the question asks for hours.",
        seconds / 60: "These are minutes; the question asks for hours.",
        seconds / 86_400: "These are days; the question asks for hours.",
        jobs / 3600: "That many hours if a job took one second. How long does one take here?",
        jobs / seconds_a_job / 3600: "Longer jobs take more time in all, not less: multiply, do not divide.",
    }
    return number(answer, seconds / 3600, mistakes=mistakes)


@exercise(
    "04.drain_time",
    "After the spike nothing arrives: only the jobs that wait at the peak are still to be done.",
    "Two moments of the middle curve, its peak and its end; or peak depth ÷ the drain rate after the peak.",
)
def _drain_time(answer: object, *, result: SpikeResult) -> str:
    """Seconds from the peak to an empty queue, read off the curve of depth."""
    peak, rate = result.peak_queue_depth, result.drain_rate_per_s
    mistakes = {
        result.offered / rate: "That is how long all jobs take. Many were done before the spike ended.",
        peak / result.conditions.rate_per_s: "You divided by the arrival rate. What empties the queue?",
        peak * result.conditions.processing_delay_s: "That is the slot's capacity; this worker did not reach it.",
        rate / peak: "Upside down: jobs ÷ (jobs a second) are seconds.",
        result.seconds_to_empty: "That is counted from the first request. When was the queue deepest?",
    }
    right = result.series.seconds_from_peak()
    if not math.isclose(peak / rate, right, rel_tol=READ_OFF):
        mistakes[peak / rate] = "That rate is the mean of the whole run. How fast did the queue drain after its peak?"
    return number(answer, right, within=READ_OFF, mistakes=mistakes)


# Accepted, with an effect, lost, why, and hints at usual wrong counts.
_CASES: tuple[tuple[set[str], set[str], int, str, dict[int, str]], ...] = (
    ({"a", "b", "c"}, {"a", "b", "c"}, 0, "nothing is lost here.", {3: "these are the jobs that were done."}),
    (
        {"a", "b", "c"},
        {"a"},
        2,
        "b and c are lost.",
        {
            0: "b and c are lost. If you subtract sets: which set from which?",
            -2: "a number of losses is never below 0: which number do you subtract from which?",
            1: "as many were done, and b and c are lost.",
        },
    ),
    (
        {"a", "b"},
        {"b", "x"},
        1,
        "only a is lost.",
        {
            0: "a is lost, although both counts are 2.",
            2: "a is lost, but x is not: x was done, and only its 202 is missing.",
        },
    ),
    ({"a"}, {"a", "x", "y"}, 0, "an effect without a 202 is no loss, and a number of losses is never below 0.", {}),
)


@exercise(
    "04.reconcile",
    "Equal counts can hide a lost job behind a job whose client got no 202: compare the ids.",
    "Sets can be subtracted: what is in one and not in the other.",
)
def _reconcile(answer: object, **_: object) -> str:
    """A function of two sets of ids: how many accepted jobs had no effect."""
    if problem := function(answer, "lost(accepted_ids, ids_with_effect)"):
        return problem
    for accepted, done, right, why, mistakes in _CASES:
        returned = called(answer, set(accepted), set(done))
        is_group = isinstance(returned, Collection) and not isinstance(returned, str | bytes | Mapping)
        counted = finite(len(returned) if is_group else returned)
        case = f"For accepted {sorted(accepted)} and done {sorted(done)} it returns {shown(returned)}"
        if isinstance(counted, str):
            return f"{case}, which is neither a number nor a set of ids."
        if counted != right:
            return f"{case}: {mistakes.get(int(counted), why)}"
    return ""


multiple_choice(
    "04.where",
    "door",
    {
        "queue": "The queue's part grows too, but where do clients wait that have no 202 yet?",
        "worker": 'The time of the work stays the same: compare "being done" in the two lines of numbers.',
        "nowhere": "The bar is not shorter: no waiting has disappeared.",
    },
    'Compare "at the door" in the two lines of numbers above the bars.',
    "What does a request have that is not accepted yet?",
)


@exercise("04.gil", "Which of the two runs drained faster? The price is how many times as fast it was.")
def _gil(answer: object, *, kernel: SpikeResult, processes: SpikeResult) -> str:
    right = processes.drain_rate_per_s / kernel.drain_rate_per_s
    mistakes = {
        1 / right: "Upside down: divide the faster one by the slower one.",
        right - 1: "That is by which share it was faster. Twice as fast is 2, not 1.",
        100 * right: "That is in percent. Twice as fast is 2, not 200.",
        processes.drain_rate_per_s - kernel.drain_rate_per_s: "That is the difference, in jobs a second: divide.",
        kernel.seconds_to_empty / processes.seconds_to_empty: (
            "You divided the times to empty. Both also hold the spike itself, which lasts equally long: take the rates."
        ),
    }
    return number(answer, right, within=MEASURED, mistakes=mistakes)
