"""Exercises of notebook 02: the arithmetic of a queue, and Little's law on a log."""

from overload_demo.course.exercise import MEASURED, exercise, number
from overload_demo.lab import theory
from overload_demo.lab.job_log import JobLog


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
        arrival_per_s - 2 * drain_per_s: "That is the new growth in one second. How many seconds does the spike last?",
        (arrival_per_s / 2 - drain_per_s)
        * spike_s: "You halved λ. As many orders arrive as before; μ is what doubles.",
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
