"""The formulas against an exact simulation of the same queue, job by job: one slot, first come, first served."""

import bisect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overload_demo.lab import theory
from overload_demo.lab.job_log import JobLog

rates = st.floats(1.0, 1000.0)
sizes = st.integers(2, 300)


def simulate(arrivals_s: list[float], service_s: float, room: int | None = None) -> JobLog:
    """Simulate a single worker; with ``room``, a job that finds so many jobs waiting is refused."""
    accepted: list[float] = []
    started: list[float] = []
    done: list[float] = []
    for at_s in arrivals_s:
        still_there = len(done) - bisect.bisect_right(done, at_s)
        if room is not None and still_there >= room:
            continue
        accepted.append(at_s)
        started.append(max(at_s, done[-1] if done else 0.0))
        done.append(started[-1] + service_s)
    return JobLog(np.array(accepted), np.array(accepted), np.array(started), np.array(done), len(done))


def spike(jobs: int, arrival_per_s: float) -> list[float]:
    return [number / arrival_per_s for number in range(jobs)]


@given(arrival=rates, drain=rates, jobs=sizes)
def test_the_peak_is_arrivals_less_departures(arrival: float, drain: float, jobs: int) -> None:
    _, depth = simulate(spike(jobs, arrival), 1 / drain).depth()

    assert abs(depth.max() - theory.peak_depth(arrival, drain, jobs / arrival)) <= 2


@given(drain=rates, times=st.floats(1.01, 50.0), jobs=sizes)
def test_the_queue_is_empty_once_the_peak_has_drained(drain: float, times: float, jobs: int) -> None:
    arrival = drain * times

    log = simulate(spike(jobs, arrival), 1 / drain)

    assert log.done_s[-1] == pytest.approx(theory.seconds_to_empty(arrival, drain, jobs / arrival))


@given(drain=rates, times=st.floats(1.01, 50.0), jobs=sizes)
def test_a_job_that_arrives_at_the_peak_waits_for_all_of_it(drain: float, times: float, jobs: int) -> None:
    arrival = drain * times
    log = simulate(spike(jobs, arrival), 1 / drain)

    peak = theory.peak_depth(arrival, drain, jobs / arrival)

    assert abs(log.done_s[-1] - log.accepted_s[-1] - theory.seconds_to_drain(peak, drain)) <= 1.001 / drain


@given(gaps=st.lists(st.floats(0.001, 10.0), min_size=1, max_size=100), service_s=st.floats(0.001, 10.0))
def test_littles_law_holds_for_any_arrivals(gaps: list[float], service_s: float) -> None:
    log = simulate(np.cumsum(gaps).tolist(), service_s)

    assert log.mean_in_system() == pytest.approx(theory.mean_in_system(log.jobs_per_s, log.mean_wait_s))


@given(drain=rates, times=st.floats(1.01, 20.0), jobs=sizes, room=st.integers(2, 100))  # with 1, the slot idles
def test_a_bound_refuses_the_part_of_the_peak_above_it(drain: float, times: float, jobs: int, room: int) -> None:
    arrival = drain * times

    log = simulate(spike(jobs, arrival), 1 / drain, room)

    refused = jobs - log.accepted_s.size
    assert abs(refused - jobs * theory.share_refused(arrival, drain, jobs / arrival, room)) <= 2


@given(drain=rates, room=st.integers(1, 50))
def test_a_bound_sized_by_age_keeps_every_job_below_that_age(drain: float, room: int) -> None:
    age_s = room / drain
    bound = round(theory.depth_for_age(age_s, drain))

    log = simulate(spike(10 * room, 5 * drain), 1 / drain, bound)

    assert bound == room
    assert (log.done_s - log.accepted_s).max() <= age_s * 1.001


def test_a_queue_that_keeps_up_stays_short_and_refuses_no_job() -> None:
    assert theory.peak_depth(100, 200, 10) == 0
    assert theory.share_refused(100, 200, 10, 5) == 0
    assert theory.seconds_to_empty(100, 200, 10) == 10
