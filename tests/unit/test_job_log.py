"""The log of a run, one row a job, from clients' arrays and an effect log that may have torn lines."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from overload_demo.jobs import JobState
from overload_demo.lab.job_log import JobEvent, JobLog, read_events, reconcile
from overload_demo.load import Kind, LoadPlan, LoadResult
from overload_demo.load.machine import Environment

BEGAN_MONO_S = 1000.0


def log_of(folder: Path, accepted: dict[str, float], lines: str) -> JobLog:
    """Read the log of a load whose clients had their 202 at these seconds (NaN: never), with a worker's lines."""
    at_s = np.array(list(accepted.values()), dtype=np.float64)
    LoadResult(
        plan=LoadPlan("http://127.0.0.1:1", requests=len(accepted)),
        intended_s=np.zeros(at_s.size),
        sent_s=np.zeros(at_s.size),
        done_s=at_s,
        status=np.where(np.isnan(at_s), 0, 202).astype(np.int16),
        kind=np.where(np.isnan(at_s), Kind.REFUSED, Kind.ACCEPTED).astype(np.uint8),
        job_ids=np.array([name.encode() for name in accepted], dtype=np.bytes_),
        processes=[],
        environment=Environment.here(),
        started_at="2026-01-01T00:00:00.000Z",
        started_mono_s=BEGAN_MONO_S,
    ).write(folder)
    (folder / "effects.log").write_text(lines)
    return JobLog.read(folder)


def rows(log: JobLog) -> list[list[float]]:
    return np.stack([log.accepted_s, log.started_s, log.done_s], axis=1).round(6).tolist()


def test_times_count_from_the_start_of_the_load_in_order_of_acceptance(tmp_path: Path) -> None:
    lines = "start b 1 1000.5\neffect b 1 1000.75\nstart a 1 1001.0\neffect a 1 1001.25\n"

    log = log_of(tmp_path, {"a": 0.4, "b": 0.2}, lines)

    assert rows(log) == [[0.2, 0.5, 0.75], [0.4, 1.0, 1.25]]


def test_a_job_that_was_not_accepted_or_had_no_effect_has_no_row(tmp_path: Path) -> None:
    lines = "start a 1 1001\neffect a 1 1002\nstart killed 1 1003\nstart gave-up 1 1004\neffect gave-up 1 1005\n"

    log = log_of(tmp_path, {"a": 0.1, "killed": 0.2, "gave-up": np.nan, "waits": 0.3}, lines)

    assert rows(log) == [[0.1, 1.0, 2.0]]


def test_the_first_start_and_the_first_effect_count(tmp_path: Path) -> None:
    lines = "start a 1 1001\nstart a 2 1003\neffect a 2 1004\nstart a 3 1005\neffect a 3 1006\n"

    assert rows(log_of(tmp_path, {"a": 0.5}, lines)) == [[0.5, 1.0, 4.0]]


@pytest.mark.parametrize(
    "torn", ["effect b", "effect b 1", "effect b 1 1003", "effect b 1 10start", "effect start b 1 1003\n", "\n"]
)
def test_a_torn_line_is_skipped(tmp_path: Path, torn: str) -> None:
    log = log_of(tmp_path, {"a": 0.1, "b": 0.2}, f"start a 1 1001\neffect a 1 1002\n{torn}")

    assert rows(log) == [[0.1, 1.0, 2.0]]


def test_a_job_whose_start_is_torn_keeps_its_effect(tmp_path: Path) -> None:
    log = log_of(tmp_path, {"a": 0.1}, "start a\neffect a 1 1002\n")

    assert np.isnan(log.started_s).tolist() == [True]
    assert log.done_s.tolist() == [2.0]


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "none")) == []
    assert rows(log_of(tmp_path, {"a": 0.1}, "")) == []


def test_events_come_in_the_order_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("start b 2 7.5\neffect a 1 7.25\n")

    assert list(read_events(tmp_path / "log")) == [JobEvent("start", "b", 2, 7.5), JobEvent("effect", "a", 1, 7.25)]


def test_depth_rises_with_an_acceptance_and_falls_with_an_effect() -> None:
    log = JobLog(
        np.zeros(2),
        accepted_s=np.array([0.0, 1.0]),
        started_s=np.array([0.0, 3.0]),
        done_s=np.array([3.0, 4.0]),
        offered=2,
    )

    at_s, depth = log.depth()

    assert (at_s.tolist(), depth.tolist()) == ([0.0, 1.0, 3.0, 4.0], [1.0, 2.0, 1.0, 0.0])
    assert (log.span_s, log.jobs_per_s, log.mean_wait_s) == (4.0, 0.5, 3.0)
    assert log.mean_in_system() == 1.5


def test_jobs_that_the_queue_still_counts_have_not_ended_and_the_others_are_lost() -> None:
    states = {"a": JobState.DONE, "b": JobState.QUEUED, "c": JobState.PROCESSING, "d": JobState.QUEUED}

    account = reconcile(list("abcd"), Counter("a"), states, left=2)

    assert (account.done, account.unended, account.examples) == (1, 2, ["lost d"])
    assert account.lost_text == "1 lost, 2 not ended"
