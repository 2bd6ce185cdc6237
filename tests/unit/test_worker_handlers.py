"""For any behaviour of a handler, its job ends with an outcome and the worker continues with the next one."""

from pathlib import Path

import pytest

from overload_demo.store.connect import Store
from tests.support.handlers import RAISED, RETURNED
from tests.support.running import make_settings, serving_api, status, submit, wait_for, working
from tests.support.waiting import wait_until

HANDLERS = "tests.support.handlers"


@pytest.mark.parametrize("what", [*RAISED, *RETURNED, "recursion"])
def test_a_failing_handler_fails_only_its_job(tmp_path: Path, store: Store, what: str) -> None:
    settings = make_settings(tmp_path, worker_handler=f"{HANDLERS}:misbehave")
    with serving_api(settings, store) as client, working(settings, store) as worker:
        [bad] = submit(client, message=what)
        [good] = submit(client)

        wait_for(client, [good])

        answer = client.get(f"/jobs/{bad}").json()
        assert answer["status"] == "failed"
        assert 0 < len(answer["error"]) <= 1000
        assert worker.pid is not None


def test_a_handler_may_be_async_and_may_take_the_context(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, worker_handler=f"{HANDLERS}:asynchronous")
    with serving_api(settings, store) as client, working(settings, store):
        ids = submit(client, 3)
        wait_for(client, ids)

        results = [client.get(f"/jobs/{job_id}").json()["result"] for job_id in ids]
        assert results == [{"value": n, "job_id": job_id, "attempt": 1} for n, job_id in enumerate(ids)]


@pytest.mark.exhaustive
def test_many_large_results_are_settled(tmp_path: Path, store: Store) -> None:
    """A batch whose results exceed what one request may hold is settled in several."""
    settings = make_settings(tmp_path, worker_handler=f"{HANDLERS}:large")
    with serving_api(settings, store) as client:
        ids = submit(client, 60)
        with working(settings, store):
            wait_for(client, ids, timeout_s=30.0)


def test_a_result_is_stored_and_unstarted_jobs_are_released_while_a_long_job_runs(tmp_path: Path, store: Store) -> None:
    """A long job in a batch of quick ones delays neither earlier results nor later jobs."""
    settings = make_settings(tmp_path, worker_handler=f"{HANDLERS}:wait_for_file")
    gate = tmp_path / "gate"
    with serving_api(settings, store) as client:
        warm_up, before = submit(client, 5), submit(client, 2)
        [long] = submit(client, message=str(gate))
        behind = submit(client, 5)
        with working(settings, store):
            wait_for(client, warm_up + before)
            wait_for(client, [long], "processing")
            wait_for(client, behind, "queued")
            with working(settings.model_copy(update={"worker_id": "second"}), store):
                wait_for(client, behind)
                assert status(client, long) == "processing"
                gate.touch()
                wait_for(client, [long])

        assert client.get("/queue/stats").json()["interrupted"] == 0


def test_a_stopped_worker_finishes_its_job_and_releases_the_rest_in_order(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, worker_handler=f"{HANDLERS}:wait_for_file")
    gate = tmp_path / "gate"
    with serving_api(settings, store) as client:
        quick = submit(client, 5)
        [running] = submit(client, message=str(gate))
        rest = submit(client, 10)
        with working(settings, store) as worker:
            wait_for(client, quick)
            wait_for(client, [running], "processing")
            worker.request_stop()
            gate.touch()
            wait_until("the worker has ended", lambda: worker.pid is None)

        assert status(client, running) == "done"
        positions = [client.get(f"/jobs/{job_id}").json()["queue_position"] for job_id in rest]
        assert positions == list(range(1, 11))


def test_a_lease_is_extended_while_python_code_runs_without_a_pause(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, worker_handler=f"{HANDLERS}:hog_the_interpreter", worker_lease_s=2.0)
    with serving_api(settings, store) as client, working(settings, store):
        [long] = submit(client)
        [longer] = [client.post("/jobs", json={"name": "hog", "value": 5, "message": ""}).json()["job_id"]]
        with working(settings.model_copy(update={"worker_id": "second"}), store):
            wait_for(client, [long, longer], timeout_s=60.0)

        assert client.get("/queue/stats").json()["interrupted"] == 0


def test_a_job_over_its_time_limit_stops_a_worker_thread(tmp_path: Path, store: Store) -> None:
    """In a notebook the job cannot be ended: the worker counts as lost, and another one runs the job."""
    changes = {"worker_job_timeout_s": 0.1, "worker_lease_s": 1.0}
    settings = make_settings(tmp_path, worker_handler=f"{HANDLERS}:wait_for_file", **changes)
    gate = tmp_path / "gate"
    with serving_api(settings, store) as client:
        [job_id] = submit(client, message=str(gate))
        with working(settings, store) as lost:
            wait_until("the worker is lost", lambda: lost.pid is None)
            gate.touch()
        with working(settings.model_copy(update={"worker_id": "second"}), store):
            wait_for(client, [job_id])
