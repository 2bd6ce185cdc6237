"""Workers with one name on one store: each job runs once while they run; a proved death releases its job at once."""

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from overload_demo.store.connect import Store
from tests.support.cases import plain_first
from tests.support.running import (
    environment,
    events,
    make_settings,
    queue_variables,
    send_signal,
    serving_api,
    submit,
    wait_for,
    worker_process,
)
from tests.support.stores import Rest
from tests.support.waiting import wait_until


def workers_alive(client: httpx.Client) -> int:
    return int(client.get("/queue/stats").json()["workers_alive"])


@pytest.mark.parametrize("name", plain_first(["worker", ""]))
def test_live_workers_with_one_name_run_a_job_once(tmp_path: Path, store_on_a_port: Store, name: str) -> None:
    """Each has its own data directory, as in containers with equal host names."""
    settings = make_settings(tmp_path)
    with serving_api(settings, store_on_a_port) as client, ExitStack() as workers:
        [job_id] = submit(client)
        for number in range(3):
            variables = queue_variables(
                store_on_a_port, settings.overload_key_prefix, WORKER_ID=name, WORKER_PROCESSING_DELAY=4
            )
            folder = tmp_path / str(number)
            folder.mkdir()
            effects = tmp_path / "effects.log"
            workers.enter_context(worker_process(folder, WORKER_EFFECT_LOG=effects, **variables))
            wait_until("all are counted", lambda alive=number + 1: workers_alive(client) == alive)
        wait_for(client, [job_id])
        stats = client.get("/queue/stats").json()

    assert events(tmp_path) == [("start", job_id, 1), ("effect", job_id, 1)]
    assert (stats["workers_alive"], stats["interrupted"], stats["failed"]) == (3, 0, 0)


@pytest.mark.parametrize("name", plain_first(["worker", ""]))
def test_the_job_of_a_killed_worker_is_run_again_at_once(tmp_path: Path, store_on_a_port: Store, name: str) -> None:
    settings = make_settings(tmp_path)
    variables = queue_variables(store_on_a_port, settings.overload_key_prefix, WORKER_ID=name, WORKER_LEASE_S=600)
    with serving_api(settings, store_on_a_port) as client:
        [job_id] = submit(client)
        with worker_process(tmp_path, WORKER_PROCESSING_DELAY=600, **variables) as worker:
            wait_until("it runs", lambda: events(tmp_path))
            worker.kill()
        with worker_process(tmp_path, **variables):
            wait_for(client, [job_id])
            assert workers_alive(client) == 1


def test_a_second_worker_with_one_worker_id_is_a_one_line_error(tmp_path: Path, store_on_a_port: Store) -> None:
    settings = make_settings(tmp_path)
    variables = queue_variables(store_on_a_port, settings.overload_key_prefix, WORKER_ID="worker")
    with worker_process(tmp_path, **variables) as first:
        wait_until("it is up", lambda: "is up" in first.log.read_text())
        outcome = subprocess.run(
            [sys.executable, "-m", "overload_demo.worker"],
            env=environment(tmp_path, **variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert first.pid is not None

    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: WORKER_ID: a live worker with the data directory ")
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", plain_first([signal.SIGTERM, signal.SIGHUP]))
def test_a_stopped_worker_finishes_its_job_and_removes_its_heartbeat(
    tmp_path: Path, store_on_a_port: Store, number: signal.Signals
) -> None:
    settings = make_settings(tmp_path)
    variables = queue_variables(store_on_a_port, settings.overload_key_prefix, WORKER_PROCESSING_DELAY=1)
    workers = f"{settings.overload_key_prefix}jobs:workers"
    with serving_api(settings, store_on_a_port) as client:
        [job_id] = submit(client)
        with worker_process(tmp_path, **variables) as worker:
            wait_until("it runs", lambda: events(tmp_path))
            send_signal(worker, number)
            wait_until("it has ended", lambda: worker.pid is None)

        assert client.get(f"/jobs/{job_id}").json()["status"] == "done"
        assert Rest.to(store_on_a_port).run("HLEN", workers) == 0
