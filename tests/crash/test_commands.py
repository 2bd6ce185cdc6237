"""The commands: one-line errors for bad input, clean stops, and behaviour when a part is missing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from overload_demo.store.connect import Store
from tests.support.cases import plain_first
from tests.support.commands import run_module
from tests.support.network import Network
from tests.support.running import (
    JOB,
    api_process,
    child,
    environment,
    events,
    free_port,
    store_processes,
    submit,
    wait_for,
    worker_process,
)
from tests.support.stores import Rest, token_file
from tests.support.waiting import wait_until


def run_command(folder: Path, module: str, *arguments: str, **variables: object) -> "subprocess.CompletedProcess[str]":
    return run_module(f"overload_demo.{module}", *arguments, env=environment(folder, **variables), cwd=folder)


def the_error(outcome: "subprocess.CompletedProcess[str]") -> str:
    """The one line of a refused start."""
    assert outcome.returncode == 1, outcome.stderr
    [line] = [line for line in outcome.stderr.splitlines() if not line.startswith("20")]  # but for log lines
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("module", plain_first(["api", "worker"]))
@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"UPSTASH_REDIS_REST_URL": "https://x.upstash.io"}, "UPSTASH_REDIS_REST_TOKEN is not"),
        ({"UPSTASH_REDIS_REST_TOKEN": "s3cret"}, "UPSTASH_REDIS_REST_URL is not"),
        ({"UPSTASH_REDIS_REST_URL": "http://x.upstash.io", "UPSTASH_REDIS_REST_TOKEN": "s3cret"}, "https"),
        ({"WORKER_PROCESSING_DELAY": "soon"}, "WORKER_PROCESSING_DELAY"),
        ({"OVERLOAD_REDIS_SERVER": "/nowhere/redis-server"}, "/nowhere/redis-server"),
        ({"OVERLOAD_DATA_DIR": "/proc/nowhere"}, "/proc/nowhere"),
    ],
)
def test_a_mistake_in_the_settings_is_a_one_line_error_that_names_it(
    tmp_path: Path, module: str, variables: dict[str, str], text: str
) -> None:
    outcome = run_command(tmp_path, module, *(["--port", "0"] if module == "api" else []), **variables)

    assert text in the_error(outcome)
    assert "s3cret" not in outcome.stderr


def test_a_missing_handler_is_a_one_line_error(tmp_path: Path) -> None:
    assert "nowhere:nothing" in the_error(run_command(tmp_path, "worker", WORKER_HANDLER="nowhere:nothing"))


def test_a_second_api_on_the_same_port_is_refused(tmp_path: Path, own_queue: dict[str, object]) -> None:
    port = free_port()
    first = child("overload_demo.api", "--port", str(port), folder=tmp_path, **own_queue)
    first.start()
    try:
        wait_until("the first serves", lambda: is_healthy(f"http://127.0.0.1:{port}"))

        outcome = run_command(tmp_path, "api", "--port", str(port))

        assert f"127.0.0.1 port {port}" in the_error(outcome)
    finally:
        first.stop()


def test_api_and_worker_started_separately_find_the_same_store(tmp_path: Path) -> None:
    with worker_process(tmp_path), api_process(tmp_path) as (_, client):
        wait_for(client, submit(client, 3))


def test_a_worker_until_empty_runs_all_jobs_and_ends(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with api_process(tmp_path, **own_queue) as (_, client):
        ids = submit(client, 25)

        outcome = run_command(tmp_path, "worker", "--until-empty", **own_queue)

        assert outcome.returncode == 0, outcome.stderr
        wait_for(client, ids)


def test_sigterm_finishes_the_running_job_and_releases_the_rest(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with api_process(tmp_path, **own_queue) as (_, client):
        ids = submit(client, 5)
        worker = child("overload_demo.worker", folder=tmp_path, **own_queue, WORKER_PROCESSING_DELAY=0.4)
        worker.start()
        wait_until("a job is running", lambda: events(tmp_path))

        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGTERM)

        wait_until("the worker has ended", lambda: worker.pid is None)
        done = [job_id for what, job_id, _ in events(tmp_path) if what == "effect"]
        started = [job_id for what, job_id, _ in events(tmp_path) if what == "start"]
        assert done == started == ids[: len(done)]
        stats = client.get("/queue/stats").json()
        assert (stats["queue_length"], stats["in_flight"], stats["workers_alive"]) == (5 - len(done), 0, 0)
        worker.stop()


@pytest.mark.parametrize(
    ("number", "code", "text"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stopped_watch_ends_in_one_line_and_the_api_keeps_running(
    tmp_path: Path, number: signal.Signals, code: int, text: str
) -> None:
    shown = tmp_path / "shown"
    terminal = environment(tmp_path, FORCE_COLOR=1, TERM="xterm")  # shows each sample, not only the last one
    with api_process(tmp_path) as (_, client), shown.open("w") as output:
        command = [sys.executable, "-m", "overload_demo", "watch", str(client.base_url)]
        with subprocess.Popen(command, env=terminal, stdout=output, stderr=subprocess.PIPE, text=True) as watch:
            try:
                wait_until("it shows a sample", lambda: "0.0 s" in shown.read_text())

                watch.send_signal(number)

                _, errors = watch.communicate(timeout=25)
            finally:
                watch.kill()
        [line] = errors.splitlines()
        assert (watch.returncode, f"error: {text}; the API keeps running" in line) == (code, True), errors
        assert client.get("/health").status_code == 200


def test_sigterm_ends_a_worker_within_the_grace_period(tmp_path: Path, own_queue: dict[str, object]) -> None:
    (tmp_path / "stuck.py").write_text("import threading\n\n\ndef handle(payload):\n    threading.Event().wait()\n")
    with api_process(tmp_path, **own_queue) as (_, client):
        ids = submit(client, 3)
        with worker_process(
            tmp_path, **own_queue, WORKER_HANDLER="stuck:handle", WORKER_GRACE_S=0.3, WORKER_LEASE_S=1
        ) as worker:
            wait_until("a job is running", lambda: events(tmp_path))
            worker.terminate()
            wait_until("the worker has ended", lambda: worker.pid is None)
            assert "did not end within WORKER_GRACE_S" in worker.log.read_text()

        with worker_process(tmp_path, **own_queue):  # it takes back the lease, which is not renewed
            wait_for(client, ids)


def test_a_job_over_its_time_limit_ends_the_worker_and_counts_as_interrupted(
    tmp_path: Path, own_queue: dict[str, object]
) -> None:
    (tmp_path / "stuck.py").write_text("import threading\n\n\ndef handle(payload):\n    threading.Event().wait()\n")
    with api_process(tmp_path, **own_queue) as (_, client):
        [job_id] = submit(client)
        limits = {"WORKER_HANDLER": "stuck:handle", "WORKER_JOB_TIMEOUT_S": 0.3, "WORKER_MAX_ATTEMPTS": 2}

        first, second = (run_command(tmp_path, "worker", **own_queue, **limits) for _ in range(2))

        assert (first.returncode, second.returncode) == (3, 3)
        with worker_process(tmp_path, **own_queue, **limits):
            wait_for(client, [job_id], "failed")
        assert "interrupted 2 times" in client.get(f"/jobs/{job_id}").json()["error"]


def test_two_workers_run_every_job_once(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with api_process(tmp_path, **own_queue) as (_, client):
        ids = submit(client, 200)
        with (
            worker_process(tmp_path, **own_queue, WORKER_PROCESSING_DELAY=0.002),
            worker_process(tmp_path, **own_queue, WORKER_PROCESSING_DELAY=0.002),
        ):
            wait_until("both run", lambda: client.get("/queue/stats").json()["workers_alive"] == 2)
            wait_for(client, ids)

    assert sorted(job_id for what, job_id, _ in events(tmp_path) if what == "effect") == sorted(ids)


@pytest.mark.exhaustive
def test_api_and_worker_recover_from_a_killed_store(tmp_path: Path) -> None:
    with api_process(tmp_path) as (_, client), worker_process(tmp_path, WORKER_PROCESSING_DELAY=0.01):
        ids = submit(client, 20)
        for pid in store_processes(tmp_path)[::-1]:  # the server first: it would end with the gateway
            os.kill(pid, signal.SIGKILL)
        ids += [answer.json()["job_id"] for _ in range(20) if (answer := client.post("/jobs", json=JOB)).is_success]

        wait_for(client, ids)

        assert len(ids) >= 20
        assert sorted({job_id for what, job_id, _ in events(tmp_path) if what == "effect"}) == sorted(ids)


WRONG_TOKEN = {"UPSTASH_REDIS_REST_TOKEN": "wr0ng"}


def test_a_wrong_token_degrades_the_api_and_ends_no_process(tmp_path: Path, store: Store) -> None:
    with (
        Network(store).serving() as network,
        api_process(tmp_path, **WRONG_TOKEN, UPSTASH_REDIS_REST_URL=network.store[0].url) as (api, client),
        worker_process(tmp_path, **WRONG_TOKEN, UPSTASH_REDIS_REST_URL=network.store[0].url) as worker,
    ):
        health = client.get("/health")
        answer = client.post("/jobs", json=JOB)

        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert "token" in health.json()["detail"]
        assert client.get("/health/ready").status_code == 503
        assert (answer.status_code, answer.json()["outcome"]) == (503, "not_enqueued")
        wait_until("the worker logs the reason", lambda: "refused the token" in worker.log.read_text())
        assert api.pid is not None
        assert worker.pid is not None
        assert "wr0ng" not in api.log.read_text() + worker.log.read_text()


def test_a_worker_waits_for_a_store_that_is_down_at_start(tmp_path: Path) -> None:
    port, token = free_port(), "a-token-of-the-test"
    url = f"http://127.0.0.1:{port}"
    address = {"UPSTASH_REDIS_REST_URL": url, "UPSTASH_REDIS_REST_TOKEN": token, "OVERLOAD_STORE_DEADLINE_S": 0.5}
    with api_process(tmp_path, **address) as (_, client), worker_process(tmp_path, **address):
        refused = client.post("/jobs", json=JOB)
        assert (refused.status_code, refused.json()["outcome"]) == (503, "not_enqueued")
        assert int(refused.headers["Retry-After"]) >= 1

        chosen = token_file(tmp_path / "token", token)
        command = [sys.executable, "-m", "overload_demo.store", "--port", str(port), "--token-file", str(chosen)]
        module = subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.DEVNULL)
        try:
            wait_until("the store answers", lambda: client.get("/health/ready").status_code == 200)
            wait_for(client, submit(client, 3))
            assert Rest(url, token).run("PING") == "PONG"
        finally:
            module.terminate()
            assert module.wait(timeout=60) == 0


def test_a_proxy_variable_does_not_catch_loopback_traffic(tmp_path: Path) -> None:
    dead = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    with api_process(tmp_path, **dead) as (_, client), worker_process(tmp_path, **dead):
        wait_for(client, submit(client))


def test_children_end_with_their_parent_and_ignore_an_interrupt(tmp_path: Path) -> None:
    with api_process(tmp_path) as (api, client), worker_process(tmp_path) as worker:
        wait_for(client, submit(client))
        assert api.pid is not None
        assert worker.pid is not None

        os.kill(api.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGINT)
        wait_for(client, submit(client))

        api.stop()
        worker.stop()
        assert (api.pid, worker.pid) == (None, None)


@pytest.mark.exhaustive
def test_plain_uvicorn_serves_the_app_too(tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "overload_demo.api.app:app",
        "--port",
        str(port),
        "--log-level",
        "error",
    ]
    server = subprocess.Popen(command, env=environment(tmp_path))
    try:
        wait_until("it serves", lambda: is_healthy(f"http://127.0.0.1:{port}"))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client, worker_process(tmp_path):
            wait_for(client, submit(client))
    finally:
        server.terminate()
        server.wait(timeout=60)


def is_healthy(url: str) -> bool:
    try:
        return httpx.get(url + "/health", trust_env=False).json()["status"] == "healthy"
    except httpx.HTTPError:
        return False
