"""A job or a stop that exceeds its time limit ends the worker's process, even if the interpreter is blocked."""

import signal
from pathlib import Path

from overload_demo.process import Child
from overload_demo.store.connect import Store
from tests.support.running import events, submit, wait_for
from tests.support.waiting import wait_until
from tests.support.workers import exit_code, handler_lab

KEEPS_THE_LOCK = """
import re

def handle(payload):
    if payload["name"] == "stuck":
        re.match("(a+)+$", "a" * 44 + "b")
    return {}
"""
STUCK_IN_A_SUM = "def handle(payload):\n    return sum(range(10**13))\n"


def wait_for_end(worker: Child) -> int | None:
    wait_until("the worker has ended", lambda: exit_code(worker) is not None, timeout_s=30.0)
    return exit_code(worker)


def test_a_job_that_blocks_the_interpreter_ends_as_dead_after_its_attempts(
    tmp_path: Path, store_on_a_port: Store
) -> None:
    limits = {"WORKER_JOB_TIMEOUT_S": 1, "WORKER_LEASE_S": 1, "WORKER_MAX_ATTEMPTS": 2}
    with handler_lab(tmp_path, store_on_a_port) as lab:
        [job_id] = submit(lab.client, name="stuck")
        others = submit(lab.client, 3)
        for attempt in (1, 2):
            with lab.worker(KEEPS_THE_LOCK, **limits) as worker:
                assert wait_for_end(worker) == -signal.SIGKILL
                assert worker.log.read_text().count(f"{job_id} exceeds WORKER_JOB_TIMEOUT_S and blocks") == attempt
        with lab.worker(KEEPS_THE_LOCK, **limits):
            wait_for(lab.client, [job_id], "failed")
            wait_for(lab.client, others)

        assert "interrupted 2 times" in lab.client.get(f"/jobs/{job_id}").json()["error"]
        assert lab.client.get("/queue/stats").json()["dead"] == 1


def test_a_stop_is_bounded_in_time_while_the_interpreter_is_blocked(tmp_path: Path, store_on_a_port: Store) -> None:
    with handler_lab(tmp_path, store_on_a_port) as lab:
        submit(lab.client)
        with lab.worker(STUCK_IN_A_SUM, WORKER_GRACE_S=0.2) as worker:
            wait_until("the job runs", lambda: events(tmp_path))
            worker.terminate()
            assert wait_for_end(worker) == -signal.SIGKILL
            assert "exceeds WORKER_GRACE_S and blocks" in worker.log.read_text()


def test_a_second_stop_signal_ends_a_blocked_worker_at_once(tmp_path: Path, store_on_a_port: Store) -> None:
    with handler_lab(tmp_path, store_on_a_port) as lab:
        submit(lab.client)
        with lab.worker(STUCK_IN_A_SUM, WORKER_GRACE_S=600) as worker:
            wait_until("the job runs", lambda: events(tmp_path))
            worker.terminate()
            # again and again: signals that are sent at once may arrive as one
            wait_until("the worker has ended", lambda: worker.terminate() or exit_code(worker) is not None)  # type: ignore[func-returns-value]
            assert exit_code(worker) == -signal.SIGKILL
