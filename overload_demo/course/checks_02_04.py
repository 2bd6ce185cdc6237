"""Exercises of the notebooks 02 and 04: the arithmetic of a queue, Little's law on a log, and a spike absorbed."""

import math

from overload_demo.course.exercise import MEASURED, READ_OFF, called, exercise, function, multiple_choice, number, shown
from overload_demo.lab import theory
from overload_demo.lab.job_log import JobLog
from overload_demo.lab.result import SpikeResult


@exercise(
    "02.peak_depth",
    "While the spike lasts, the queue grows by λ - μ jobs each second.",
    "Multiply that growth by the seconds of the spike, T.",
)
def _peak_depth(answer: object, *, arrival_per_s: float, drain_per_s: float, spike_s: float) -> str:
    mistakes = {
        arrival_per_s * spike_s: "λ T is the number of jobs that arrive, as if none left. The worker does not wait for "
        "the spike to end: while λ jobs a second arrive, μ leave.",
        arrival_per_s - drain_per_s: "That is the growth in one second. How many seconds does the spike last?",
        drain_per_s * spike_s: "μ T are the jobs done during the spike. How many have arrived and are not done?",
        (drain_per_s - arrival_per_s) * spike_s: "The right size, but a depth below 0? More come than leave: λ - μ.",
    }
    return number(answer, theory.peak_depth(arrival_per_s, drain_per_s, spike_s), mistakes=mistakes)


@exercise(
    "02.seconds_to_empty",
    "Two stretches: the spike itself, T, and the draining of the peak after it.",
    "After the spike nothing arrives, and μ jobs leave each second: draining takes peak ÷ μ.",
)
def _seconds_to_empty(answer: object, *, arrival_per_s: float, drain_per_s: float, spike_s: float) -> str:
    peak = theory.peak_depth(arrival_per_s, drain_per_s, spike_s)
    mistakes = {
        peak / drain_per_s: "That is the time from the end of the spike. From its first request, T comes on top.",
        spike_s + peak / arrival_per_s: "You divided by λ. Nothing arrives any more: the queue shrinks at the rate μ.",
        peak / arrival_per_s: "You divided by λ, the arrival rate; jobs leave at the rate μ. Then add T.",
        spike_s + peak / (arrival_per_s - drain_per_s): "λ - μ is how it grows. After the spike it shrinks at μ.",
        spike_s: "When the spike is over, the queue is at its deepest.",
    }
    return number(answer, theory.seconds_to_empty(arrival_per_s, drain_per_s, spike_s), mistakes=mistakes)


@exercise(
    "02.wait",
    "First come, first served: all jobs that are in the queue go first.",
    "So it waits until the whole peak is done, at μ jobs a second.",
)
def _wait(answer: object, *, arrival_per_s: float, drain_per_s: float, spike_s: float) -> str:
    peak = theory.peak_depth(arrival_per_s, drain_per_s, spike_s)
    right = theory.seconds_to_drain(peak, drain_per_s)
    mistakes = {
        spike_s + right: "That is when it is done, counted from the first request. It came at the end of the spike.",
        peak / arrival_per_s: "You divided by λ. The jobs before it leave at the rate μ.",
        right / 2: "That is the mean wait. The job at the peak waits longest of all.",
        1 / drain_per_s: "That is the time one job takes. How many are before it?",
    }
    return number(answer, right, mistakes=mistakes)


@exercise("02.half", "Work with rates: the growth is λ - μ, and only μ doubles.", "Put the new μ into (λ - μ) T.")
def _half(answer: object, *, arrival_per_s: float, drain_per_s: float, spike_s: float) -> str:
    peak = theory.peak_depth(arrival_per_s, drain_per_s, spike_s)
    mistakes = {
        peak / 2: "Twice as fast does not halve the peak: λ stays, so λ - μ does not halve.",
        peak: "That is the old peak. Jobs leave twice as fast now, also during the spike.",
        peak * 2: "A faster worker makes the queue deeper? Jobs leave at 2 μ now.",
    }
    return number(answer, theory.peak_depth(arrival_per_s, 2 * drain_per_s, spike_s), mistakes=mistakes)


@exercise(
    "02.little",
    "λ is the number of jobs ÷ the span of the whole log, from the first acceptance to the last effect.",
    "W is the mean of done_s - accepted_s. Multiply the two.",
)
def _little(answer: object, *, log: JobLog) -> str:
    jobs, mean_s = log.accepted_s.size, log.mean_wait_s
    spike_s = float(log.accepted_s.max() - log.accepted_s.min())
    mistakes = {
        jobs / spike_s * mean_s: "You divided by the spike alone. Jobs were in the system until the last one was done: "
        "the span ends there.",
        mean_s: "That is W, in seconds. L is a number of jobs: multiply by λ.",
        jobs * mean_s: "That is the sum of all waits: the area between the curves. Divide it by the span.",
        log.jobs_per_s: "That is λ, in jobs a second. Multiply by the mean wait.",
        jobs / 2: "Half of all jobs is a guess from the figure; compute it from the two arrays.",
    }
    return number(answer, theory.mean_in_system(log.jobs_per_s, mean_s), within=MEASURED, mistakes=mistakes)


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


_CASES: tuple[tuple[set[str], set[str], int, str], ...] = (
    ({"a", "b", "c"}, {"a", "b", "c"}, 0, "nothing is lost here."),
    ({"a", "b", "c"}, {"a"}, 2, "b and c are lost."),
    ({"a", "b"}, {"b", "x"}, 1, "a is lost, although both counts are 2."),
    ({"a"}, {"a", "x", "y"}, 0, "an effect without a 202 is no loss, and a number of losses is never below 0."),
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
    for accepted, done, right, why in _CASES:
        returned = called(answer, set(accepted), set(done))
        counted = len(returned) if isinstance(returned, set | frozenset | list | tuple) else returned
        if counted is False or counted != right:
            return f"For accepted {sorted(accepted)} and done {sorted(done)} it returns {shown(returned)}: {why}"
    return ""


multiple_choice(
    "04.where",
    "door",
    {
        "queue": "The queue's part grows too, but where do clients wait that have no 202 yet?",
        "worker": "The time of the work stays the same: look at the green part.",
        "nowhere": "The bar is not shorter: no waiting has disappeared.",
    },
    "Compare the orange parts of the two bars.",
    "What does a request have that is not accepted yet?",
)


@exercise("04.gil", "Which of the two runs drained faster? The price is how many times as fast it was.")
def _gil(answer: object, *, kernel: SpikeResult, processes: SpikeResult) -> str:
    right = processes.drain_rate_per_s / kernel.drain_rate_per_s
    mistakes = {1 / right: "Upside down: divide the faster one by the slower one."}
    return number(answer, right, within=MEASURED, mistakes=mistakes)
