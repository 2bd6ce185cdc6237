"""A handler may start processes: none shares or repeats the worker's locks, connections or jobs."""

import os
from pathlib import Path

import psutil
import pytest

from overload_demo.store.connect import Store
from tests.support.cases import plain_first
from tests.support.running import events, make_settings, serving_api, submit, wait_for, working
from tests.support.waiting import wait_until
from tests.support.workers import exit_code, handler_lab

POOLS = """
import multiprocessing, os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor

def double(n):
    return 2 * n

def handle(payload):
    what = payload["message"]
    if what == "pool":
        for _ in range(8):  # a stop signal is ignored by the pool's processes at times only
            with multiprocessing.Pool(2) as pool:
                result = pool.map(double, [1, 2])
        return result
    if what == "empty pool":
        with multiprocessing.Pool(2):
            return "ended at once"
    if what == "executor":
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            return list(pool.map(double, [1, 2]))
    if what == "command":
        return subprocess.run([sys.executable, "-S", "-c", "print(4)"], capture_output=True, text=True).stdout
    if what == "all children":
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1])
"""
RESULTS = {
    "pool": [2, 4],
    "empty pool": "ended at once",
    "executor": [2, 4],
    "command": "4\n",
    "all children": 7,
}
FORKS = """
import asyncio, os, sys

def fork(what):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if what == "exits":
        sys.exit(5)
    if what == "exits with a text":
        sys.exit("why")
    if what == "raises":
        raise ValueError("in the child")
    return "twice"

def handle(payload):
    return in_a_loop(payload) if payload["name"] == "async" else fork(payload["message"])

async def in_a_loop(payload):
    await asyncio.sleep(0)
    return fork(payload["message"])
"""
CODES = {"returns": 0, "exits": 5, "exits with a text": 1, "raises": 1}
STAYS = """
import os, threading

def handle(payload):
    if payload["name"] == "fork" and os.fork() == 0:
        with open(payload["message"], "w") as file:
            file.write(str(os.getpid()))
        threading.Event().wait(60)
        os._exit(0)
    return {}
"""


def test_pools_executors_and_commands_work_inside_a_handler(tmp_path: Path, store_on_a_port: Store) -> None:
    with handler_lab(tmp_path, store_on_a_port) as lab:
        ids = {what: submit(lab.client, message=what)[0] for what in RESULTS}
        with lab.worker(POOLS, WORKER_JOB_TIMEOUT_S=20):
            wait_for(lab.client, list(ids.values()), timeout_s=30.0)

        found = {what: lab.client.get(f"/jobs/{job_id}").json()["result"] for what, job_id in ids.items()}
        assert found == RESULTS


@pytest.mark.parametrize("kind", plain_first(["sync", "async"]))
def test_a_forked_child_that_returns_or_exits_ends_and_settles_nothing(
    tmp_path: Path, store_on_a_port: Store, kind: str
) -> None:
    with handler_lab(tmp_path, store_on_a_port) as lab:
        ids = {what: submit(lab.client, message=what, name=kind)[0] for what in CODES}
        last = submit(lab.client, message="returns", name=kind)
        with lab.worker(FORKS, WORKER_JOB_TIMEOUT_S=20):
            wait_for(lab.client, [*ids.values(), *last])

        found = {what: lab.client.get(f"/jobs/{job_id}").json()["result"] for what, job_id in ids.items()}
        assert found == CODES
        assert len(events(tmp_path)) == 2 * (len(CODES) + 1)
        assert lab.client.get("/queue/stats").json()["done"] == len(CODES) + 1


def test_a_fork_in_a_worker_thread_of_a_kernel_ends_too(
    tmp_path: Path, store_on_a_port: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forks_in_a_thread.py").write_text(FORKS)
    monkeypatch.syspath_prepend(tmp_path)
    settings = make_settings(tmp_path, worker_handler="forks_in_a_thread:handle")
    with serving_api(settings, store_on_a_port) as client, working(settings, store_on_a_port):
        ids = {what: submit(client, message=what)[0] for what in CODES}
        wait_for(client, list(ids.values()))

        assert {what: client.get(f"/jobs/{job_id}").json()["result"] for what, job_id in ids.items()} == CODES
        assert len(events(tmp_path)) == 2 * len(CODES)


def test_a_surviving_forked_child_holds_no_lock_port_or_connection(tmp_path: Path, store_on_a_port: Store) -> None:
    """The child outlives its worker, and the next worker gets the same slot and port."""
    pid_file = tmp_path / "pid"
    with handler_lab(tmp_path, store_on_a_port) as lab:
        [job_id] = submit(lab.client, name="fork", message=str(pid_file))
        with lab.worker(STAYS, WORKER_METRICS_PORT=0) as worker:
            wait_for(lab.client, [job_id])
            wait_until("the child has written its id", lambda: pid_file.exists() and pid_file.read_text())
            pid = int(pid_file.read_text())
            try:
                open_files = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
                assert not [one for one in open_files if "eventpoll" in one or "slot-" in one]
                assert psutil.Process(pid).net_connections() == []
                os.kill(pid, 15)  # not the worker's stop: the child ends
                wait_until("the child ends", lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
            finally:
                os.kill(pid, 9)
            wait_for(lab.client, submit(lab.client))
            worker.terminate()
            wait_until("the worker ends gracefully", lambda: exit_code(worker) == 0)
