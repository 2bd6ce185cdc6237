"""What a handler leaves running in the worker's process is named, and neither delays nor changes its end."""

import os
import signal
from pathlib import Path

import pytest

from overload_demo.store.connect import Store
from tests.support.cases import plain_first
from tests.support.running import events, submit, wait_for
from tests.support.waiting import wait_until
from tests.support.workers import exit_code, handler_lab

THREAD = """
import threading
def handle(payload):
    threading.Thread(target=threading.Event().wait, name="left-behind").start()
    return {}
"""
EXECUTOR = """
import asyncio, threading
def stay():
    threading.current_thread().name = "left-behind"
    threading.Event().wait()
async def handle(payload):
    handle.task = asyncio.create_task(asyncio.to_thread(stay))
    await asyncio.sleep(0.1)
    return {}
"""
PROCESS = """
import multiprocessing, os, threading
def stay():
    while os.getppid() == parent:
        threading.Event().wait(0.05)
def handle(payload):
    global parent
    parent = os.getpid()
    multiprocessing.get_context("fork").Process(target=stay, name="left-behind").start()
    return {}
"""
IDLE_POOL = """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
def handle(payload):
    return pool.submit(len, "four").result()
"""
TASK = """
import asyncio
async def left_behind():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
async def handle(payload):
    handle.task = asyncio.create_task(left_behind())
    await asyncio.sleep(0)
    return {}
"""
DESCRIPTORS = """
import os
def handle(payload):
    os.closerange(3, 1000)
    return {}
"""
ASYNC_DESCRIPTORS = DESCRIPTORS.replace("def handle", "async def handle")
SIGNALS = """
import signal
def handle(payload):
    signal.signal(signal.SIGTERM, lambda *_: None)
    return {}
"""


@pytest.mark.parametrize(
    ("code", "ends_by"),
    plain_first([(PROCESS, "SIGTERM"), (THREAD, "--until-empty"), (EXECUTOR, "--until-empty"), (THREAD, "SIGTERM")]),
    ids=["process and SIGTERM", "thread", "executor", "thread and SIGTERM"],
)
def test_leftover_threads_and_processes_are_named_and_do_not_block_the_end(
    tmp_path: Path, store_on_a_port: Store, code: str, ends_by: str
) -> None:
    with handler_lab(tmp_path, store_on_a_port) as lab:
        ids = submit(lab.client)
        arguments = [ends_by] if ends_by.startswith("--") else []
        with lab.worker(code, *arguments, WORKER_GRACE_S=0.5) as worker:
            wait_for(lab.client, ids)
            if not arguments:
                worker.terminate()
            wait_until("the worker ends", lambda: exit_code(worker) is not None)
            assert exit_code(worker) == 0

        assert "without what a handler has left running: " in worker.log.read_text()
        assert "'left-behind'" in worker.log.read_text()
        assert "did not end within" not in worker.log.read_text()


@pytest.mark.parametrize("code", plain_first([IDLE_POOL, TASK]), ids=["idle pool", "task"])
def test_an_idle_pool_and_an_uncancellable_task_do_not_block_the_end(
    tmp_path: Path, store_on_a_port: Store, code: str
) -> None:
    with handler_lab(tmp_path, store_on_a_port) as lab:
        submit(lab.client)
        with lab.worker(code, "--until-empty", WORKER_GRACE_S=600) as worker:
            wait_until("the worker ends", lambda: exit_code(worker) is not None)
            assert exit_code(worker) == 0

        assert ("a task that the handler has left" in worker.log.read_text()) == (code is TASK)


@pytest.mark.parametrize("code", plain_first([DESCRIPTORS, ASYNC_DESCRIPTORS]), ids=["sync", "async"])
def test_closed_descriptors_end_the_worker_with_the_reason(tmp_path: Path, store_on_a_port: Store, code: str) -> None:
    with handler_lab(tmp_path, store_on_a_port) as lab:
        submit(lab.client)
        with lab.worker(code, WORKER_EFFECT_LOG="") as worker:
            wait_until("the worker ends", lambda: exit_code(worker) is not None)
            assert exit_code(worker) == 1

        assert "(Bad file descriptor): does the handler close descriptors" in worker.log.read_text().splitlines()[-1]


def test_a_replaced_signal_handler_is_restored_and_logged(tmp_path: Path, store_on_a_port: Store) -> None:
    with handler_lab(tmp_path, store_on_a_port) as lab:
        ids = submit(lab.client, 2)
        with lab.worker(SIGNALS) as worker:
            wait_for(lab.client, ids)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGTERM)
            wait_until("the worker ends", lambda: exit_code(worker) == 0)

        assert "replaced the signal handler of SIGTERM: restored" in worker.log.read_text()
        assert len(events(tmp_path)) == 4
