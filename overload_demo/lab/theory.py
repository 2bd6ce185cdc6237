"""The arithmetic of waiting: what to expect before measuring.

A queue is treated as a fluid: work flows in at a rate and out at a rate (G. F. Newell, *Applications of Queueing
Theory*, 2nd ed. 1982, chapter 2: cumulative arrivals and departures). Good while many jobs wait, as in a spike.
Rates are jobs a second, times seconds.
"""

import math

import numpy as np
import numpy.typing as npt


def capacity_per_s(delay_s: float) -> float:
    """Return the best rate of one slot: 1 ÷ the time a job holds it."""
    return 1 / delay_s


def smallest_batch(arrival_per_s: float, call_s: float, calls_at_once: int = 2) -> int:
    """Return the batch limit that keeps up: Little's law, λ x seconds a call = jobs in calls, over those in flight."""
    return max(1, math.ceil(arrival_per_s * call_s / calls_at_once))


def peak_depth(arrival_per_s: float, drain_per_s: float, spike_s: float) -> float:
    """Return the jobs waiting at the end of a spike: (λ - μ) T; 0 if the queue keeps up. Newell, section 2.2."""
    return max(0.0, (arrival_per_s - drain_per_s) * spike_s)


def seconds_to_drain(depth: float, drain_per_s: float) -> float:
    """Return how long a backlog takes once arrivals have ended: depth ÷ μ. Newell, section 2.2.

    First come, first served, a job that arrives behind the backlog waits as long.
    """
    return depth / drain_per_s


def seconds_to_empty(arrival_per_s: float, drain_per_s: float, spike_s: float) -> float:
    """Return the time from the first request of a spike to an empty queue: T + (λ - μ) T ÷ μ."""
    return spike_s + seconds_to_drain(peak_depth(arrival_per_s, drain_per_s, spike_s), drain_per_s)


def mean_in_system(arrival_per_s: float, mean_time_s: float) -> float:
    """Little's law, L = λ W: jobs in a system = jobs a second that enter it x seconds each stays.

    J. D. C. Little, *A Proof for the Queuing Formula: L = λW*, Operations Research 9(3), 1961. It is exact over a
    finite log that begins and ends empty (Little's *50th Anniversary*, Operations Research 59(3), 2011, theorem LL.1).
    """
    return arrival_per_s * mean_time_s


def depth_for_age(age_s: float, drain_per_s: float) -> float:
    """Return the bound that keeps the oldest job younger than ``age_s``: Little's law reversed, μ x age."""
    return age_s * drain_per_s


def share_refused(arrival_per_s: float, drain_per_s: float, spike_s: float, max_depth: float) -> float:
    """Return the share of a spike that a queue of at most ``max_depth`` jobs refuses, 0 to 1: the peak above the bound.

    Once full, it takes one job for each that leaves: max_depth + μ T of the λ T jobs get in (Newell, section 2.2).
    """
    excess = max(0.0, peak_depth(arrival_per_s, drain_per_s, spike_s) - max_depth)
    return excess / (arrival_per_s * spike_s)


def fewest_workers(arrival_per_s: float, worker_per_s: float, spike_s: float, age_s: float) -> int:
    """Return the fewest workers that refuse no job of a spike and let none wait longer than ``age_s``.

    n workers do n μ jobs a second, so a queue of n μ x age is allowed (Little's law); the peak (λ - n μ) T must fit
    into it (Newell, section 2.2): n >= λ T ÷ (μ (T + age)).
    """
    return max(1, math.ceil(arrival_per_s * spike_s / (worker_per_s * (spike_s + age_s)) - 1e-9))


def storm_load(retries: float) -> float:
    """Return the load λ ÷ μ above which a retry storm outlasts its trigger: 1 ÷ (1 + R).

    While no result is in time, each request is sent 1 + R times, and the queue grows if λ (1 + R) > μ. N. Bronson et
    al., *Metastable Failures in Distributed Systems*, HotOS 2021: below is the stable state, above the vulnerable one.
    """
    return 1 / (1 + retries)


def storm_seconds(waiting: float, arrival_per_s: float, drain_per_s: float, retries: float) -> float:
    """Return how long a storm takes to drain its queue: jobs ÷ (μ - λ (1 + R)), infinite above :func:`storm_load`."""
    surplus_per_s = drain_per_s - arrival_per_s * (1 + retries)
    return waiting / surplus_per_s if surplus_per_s > 0 else math.inf


def waits_s(arrivals_s: npt.NDArray[np.float64], job_s: float) -> npt.NDArray[np.float64]:
    """Return how long each job waits for one slot, first come, first served; arrivals are sorted, shape ``(jobs,)``.

    Lindley's recursion, W' = max(0, W + job_s - gap), in closed form (D. V. Lindley, *The Theory of Queues with a
    Single Server*, Proc. Cambridge Phil. Soc. 48, 1952). It needs no steady state, so it holds above capacity too.
    """
    ahead_s = job_s * np.arange(arrivals_s.size) - arrivals_s
    return ahead_s - np.minimum.accumulate(ahead_s)


def seen_by(share: float, requests: int) -> float:
    """Return the share of users with ``requests`` independent requests who meet one of the slowest ``share``, 0 to 1.

    1 - (1 - share) ^ requests (J. Dean and L. A. Barroso, *The Tail at Scale*, CACM 56(2), 2013).
    """
    return 1 - (1 - share) ** requests
