"""Exercises of 04, the spike absorbed."""

import math

from overload_demo.course.exercise import MEASURED, READ_OFF, called, choice, exercise, function, number, shown
from overload_demo.lab.result import SpikeResult


@exercise(
    "04.hours",
    "The worker does one job at a time: how many seconds are all of them together?",
    "jobs x seconds a job ÷ 3,600 seconds an hour.",
)
def hours(answer: object, *, jobs: int, seconds_a_job: float) -> str:
    """How long one worker takes for all jobs."""
    seconds = jobs * seconds_a_job
    mistakes = {
        seconds: "These are seconds; the question asks for hours.",
        seconds / 60: "These are minutes; the question asks for hours.",
        seconds / 86_400: "These are days; the question asks for hours.",
        jobs / 3600: "That many hours if a job took one second. How long does one take here?",
        jobs / seconds_a_job / 3600: "Twice as long a job makes it longer, not shorter: multiply, do not divide.",
    }
    return number(answer, seconds / 3600, mistakes=mistakes)


@exercise(
    "04.drain_time",
    "After the spike nothing arrives any more: only what waits at the peak has still to be done.",
    "Two moments of the middle curve, its peak and its end; or peak depth ÷ the drain rate after the peak.",
)
def drain_time(answer: object, *, result: SpikeResult) -> str:
    """Seconds from the peak to an empty queue, as the curve of depth has it."""
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


@exercise(
    "04.reconcile",
    "Equal counts can hide a lost job behind one that nobody was told about: compare the ids.",
    "Sets can be subtracted: what is in one and not in the other.",
)
def reconcile(answer: object, **_: object) -> str:
    """A function of two sets of ids: how many accepted jobs had no effect."""
    if problem := function(answer, "lost(accepted_ids, ids_with_effect)"):
        return problem
    for accepted, done, right, why in _CASES:
        says = called(answer, set(accepted), set(done))
        counted = len(says) if isinstance(says, set | frozenset | list | tuple) else says
        if counted is False or counted != right:
            return f"For accepted {sorted(accepted)} and done {sorted(done)} it says {shown(says)}: {why}"
    return ""


_CASES: tuple[tuple[set[str], set[str], int, str], ...] = (
    ({"a", "b", "c"}, {"a", "b", "c"}, 0, "nothing is lost here."),
    ({"a", "b", "c"}, {"a"}, 2, "b and c are lost."),
    ({"a", "b"}, {"b", "x"}, 1, "a is lost, although both counts are 2."),
    ({"a"}, {"a", "x", "y"}, 0, "effects nobody was told about are no losses, and none can be negative."),
)


@exercise("04.where", "Compare the orange parts of the two bars.", "What has a request that nobody has accepted yet?")
def where(answer: object, **_: object) -> str:
    """Where the waiting goes when all come at once."""
    return choice(
        answer,
        "door",
        {
            "queue": "The queue's part grows too, but where do clients wait that have no 202 yet?",
            "worker": "A job is not done any slower: look at the green part.",
            "nowhere": "The bar is not shorter: no waiting has vanished.",
        },
    )


@exercise("04.gil", "Which of the two runs drained faster? The price is how many times as fast it was.")
def gil(answer: object, *, kernel: SpikeResult, processes: SpikeResult) -> str:
    """How many times as fast the queue drained with a process for the API and one for the worker."""
    right = processes.drain_rate_per_s / kernel.drain_rate_per_s
    return number(
        answer, right, within=MEASURED, mistakes={1 / right: "Upside down: divide the faster one by the slower one."}
    )
