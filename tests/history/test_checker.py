"""The checker: a clean history is valid, and each kind of violation is found and named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from overload_demo.lab.history import Fault, Final, History, JobAttempt, Poll, Submission
from tests.history.checker import check
from tests.history.record import Recorder, read

KILL = Fault("the worker is killed", 5.0, 5.1)


def clean() -> History:
    """Three jobs, one after the other, submitted, polled, done."""
    history = History(counted={"accepted": 3, "done": 3, "failed": 0, "queue_length": 0, "in_flight": 0})
    for number in range(3):
        job_id, at = f"job_{number}", float(number)
        history.requests.append(Submission(number, at, at + 0.1, "ok", job_id))
        history.polls += [
            Poll(at + 0.2, job_id, "queued", position=3 - number),
            Poll(at + 0.3, job_id, "processing"),
            Poll(at + 20, job_id, "done", result={"doubled": 2 * number}),
        ]
        history.starts.append(JobAttempt(at + 10, job_id, 1, number, 7))
        history.effects.append(JobAttempt(at + 10.5, job_id, 1, number, 7))
        history.finals[job_id] = Final("done", {"doubled": 2 * number})
    return history


def lose_a_job(history: History) -> None:
    history.finals["job_1"] = Final("queued")


def lose_the_record_of_a_job(history: History) -> None:
    del history.finals["job_1"]


def report_a_job_done_that_never_ran(history: History) -> None:
    history.effects = [run for run in history.effects if run.job_id != "job_1"]


def run_a_job_that_was_never_submitted(history: History) -> None:
    history.starts.append(JobAttempt(13.0, "job_9", 1, 99, 7))


def run_a_refused_job(history: History) -> None:
    history.requests[1] = replace(history.requests[1], outcome="fail")


def enqueue_one_request_twice(history: History) -> None:
    history.starts.append(JobAttempt(13.0, "job_1b", 1, 1, 7))


def start_a_job_again(history: History) -> None:
    history.starts.append(JobAttempt(13.0, "job_1", 2, 1, 7))


def start_a_job_too_often(history: History) -> None:
    history.faults.append(KILL)
    history.starts += [JobAttempt(13.0 + n, "job_1", 2 + n, 1, 7) for n in range(3)]


def change_a_result(history: History) -> None:
    history.polls.append(Poll(30.0, "job_1", "done", result={"doubled": 3}))


def mix_up_results(history: History) -> None:
    history.finals["job_1"] = Final("done", {"doubled": 4})
    history.polls = [poll for poll in history.polls if poll.job_id != "job_1"]


def undo_a_result(history: History) -> None:
    history.polls.append(Poll(30.0, "job_1", "processing"))


def start_the_last_first(history: History) -> None:
    history.starts[2] = replace(history.starts[2], at=9.0)


def move_back_in_the_queue(history: History) -> None:
    history.polls.insert(1, Poll(0.25, "job_0", "queued", position=9))


def leave_one_in_the_queue(history: History) -> None:
    history.counted = dict(history.counted) | {"queue_length": 1}


def count_one_too_many(history: History) -> None:
    history.counted = dict(history.counted) | {"accepted": 4}


def test_a_clean_history_is_valid() -> None:
    verdict = check(clean())

    assert not verdict.wrong, verdict.describe()
    assert verdict.counts == {
        "attempted": 3,
        "acknowledged": 3,
        "refused": 0,
        "unknown": 0,
        "recovered": 0,
        "started again": 0,
        "duplicated": 0,
    }


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lose_a_job, "lost"),
        (lose_the_record_of_a_job, "lost"),
        (report_a_job_done_that_never_ran, "lost"),
        (run_a_job_that_was_never_submitted, "phantom"),
        (run_a_refused_job, "forbidden"),
        (enqueue_one_request_twice, "enqueued twice"),
        (start_a_job_again, "repeated without a fault"),
        (start_a_job_too_often, "started too often"),
        (change_a_result, "result changed"),
        (mix_up_results, "result of another job"),
        (undo_a_result, "illegal transition"),
        (start_the_last_first, "out of order"),
        (move_back_in_the_queue, "position grew"),
        (leave_one_in_the_queue, "left over"),
        (count_one_too_many, "not conserved"),
    ],
)
def test_each_violation_is_found_and_named(spoil: Callable[[History], None], kind: str) -> None:
    history = clean()

    spoil(history)

    assert kind in check(history).wrong


def test_a_repetition_that_a_fault_explains_is_counted_and_allowed() -> None:
    history = clean()
    history.faults.append(Fault("the worker is killed", 11.2, 11.3))
    history.starts.append(JobAttempt(13.0, "job_1", 2, 1, 8))
    history.effects.append(JobAttempt(13.5, "job_1", 2, 1, 8))

    verdict = check(history)

    assert not verdict.wrong, verdict.describe()
    assert (verdict.counts["started again"], verdict.counts["duplicated"]) == (1, 1)
    assert verdict.exposed_jobs == 2  # job_1 and job_2 were accepted and had not had their effect


def test_a_request_of_unknown_outcome_may_be_enqueued_or_not() -> None:
    history = clean()
    history.requests[1] = replace(history.requests[1], outcome="info", job_id=None)
    history.requests.append(Submission(50, 3.0, 3.1, "info", None))

    verdict = check(history)

    assert not verdict.wrong, verdict.describe()
    assert verdict.counts["recovered"] == 1


def test_recorded_events_are_read_back_and_a_torn_line_is_skipped(tmp_path: Path) -> None:
    client, worker = Recorder(tmp_path / "client"), Recorder(tmp_path / "worker")
    client.write("invoke", value=1)
    client.write("invoke", value=2)
    worker.write("fault begins", name="kill")
    client.write("ok", value=1, job_id="job_a")
    worker.write("fault ends", name="kill")
    worker.write("start", job_id="job_a", attempt=1, value=1, worker=7)
    with (tmp_path / "worker").open("ab") as file:
        file.write(b'{"at": 1, "wh')

    history = read([tmp_path / "client", tmp_path / "worker", tmp_path / "absent"])

    assert {(one.value, one.outcome, one.job_id) for one in history.requests} == {(1, "ok", "job_a"), (2, "info", None)}
    assert [run.job_id for run in history.starts] == ["job_a"]
    [fault] = history.faults
    assert fault.began_at < fault.ended_at
