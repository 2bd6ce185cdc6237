"""``python -m overload_demo.live`` as a process: one-line errors, and no process left however it ends."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from overload_demo.live.stage import FILE, Rehearsal
from overload_demo.load.machine import Environment
from tests.notebooks.kernels import command_lines, no_process_left, processes_of
from tests.support.cases import plain_first
from tests.support.commands import run_module
from tests.support.running import environment, free_port
from tests.support.stages import SIZES
from tests.support.waiting import wait_until

COMMAND = [sys.executable, "-m", "overload_demo.live"]


def the_error(folder: Path, *arguments: str) -> str:
    """The one line that refuses these arguments, with exit code 1."""
    outcome = run_module(COMMAND[-1], *arguments, env=environment(folder), cwd=folder)
    assert outcome.returncode == 1, outcome.stderr
    [line] = outcome.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_missing_api_is_a_one_line_error(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert the_error(tmp_path, url) == f"error: nothing to watch at {url}: Connection refused"


@pytest.mark.parametrize("body", plain_first([b'{"service": "another"}', b"hello", b"[]"]))
def test_another_server_is_a_one_line_error(tmp_path: Path, body: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            assert the_error(tmp_path, url) == f"error: the server at {url} is not this project's API"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("arguments", "text"),
    plain_first(
        [
            (["127.0.0.1:8000"], "begins with http:// or https://, and a host follows"),
            (["http://127.0.0.1:8000", "--control"], "one at a time"),
            (["--replay", "nowhere"], "no run to replay"),
            (["http://"], "is not the URL of an API"),
            (["http://127.0.0.1:port"], "is not the URL of an API"),
            (["--replay", "nowhere", "--rehearse"], "one at a time"),
            (["--control", "--output", "/proc/nowhere"], "/proc/nowhere"),
            (["--replay", "nowhere", "--nodes", "6"], "--nodes has no effect with --replay"),
            (["--rehearse", "--nodes", "3"], "OVERLOAD_NODES: must be 1, or an even number from 6 on"),
            (["--rehearse", "--port", "0"], "--port has no effect with --rehearse"),
            (["--control", "--speed", "2"], "--speed has no effect with --control"),
            (["--output", "."], "--output has no effect with a URL"),
            (["http://ada:secret@127.0.0.1:8000"], "the URL of an API has no user name"),
        ],
        3,
    ),
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_a_mistake_in_the_arguments_is_a_one_line_error(tmp_path: Path, arguments: list[str], text: str) -> None:
    assert text in the_error(tmp_path, *arguments)


@contextmanager
def on_stage(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the command with controls after a rehearsal; yield its process and the printed address."""
    runs = folder / "runs"
    runs.mkdir()
    rehearsed = Rehearsal(environment=Environment.here(), sizes=replace(SIZES, requests=2_400))
    (runs / FILE).write_text(rehearsed.model_dump_json())
    process = subprocess.Popen(
        [*COMMAND, "--control"],
        env=environment(folder, OVERLOAD_STORE_DEADLINE_S=1),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with no_process_left(folder, timeout_s=30.0):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert re.match(r"http://127\.0\.0\.1:\d+/#\S{16,}  with controls", line), line
            yield process, line.split()[0]
        finally:
            process.kill()
            process.communicate()


def order(address: str, name: str) -> None:
    """Send an order; it must be accepted."""
    url, _, token = address.partition("#")
    answer = httpx.post(f"{url}control/{name}", headers={"X-Control-Token": token}, json={}, trust_env=False)
    assert answer.status_code == 204, answer.text


def stopped(folder: Path) -> list[psutil.Process]:
    return [process for process in processes_of(folder) if process.status() == psutil.STATUS_STOPPED]


@pytest.mark.parametrize(
    ("number", "code", "text"),
    [
        pytest.param(
            signal.SIGINT, 130, "error: interrupted; all started processes have ended\n", marks=pytest.mark.exhaustive
        ),
        pytest.param(
            signal.SIGTERM, 143, "error: terminated; all started processes have ended\n", marks=pytest.mark.exhaustive
        ),
        (signal.SIGKILL, -9, ""),
    ],
    ids=["Ctrl-C", "SIGTERM", "kill -9"],
)
def test_a_command_that_ends_during_a_spike_with_a_frozen_store_leaves_nothing(
    tmp_path: Path, number: signal.Signals, code: int, text: str
) -> None:
    with on_stage(tmp_path) as (process, address):
        order(address, "spike")
        wait_until("it fires", lambda: any("overload_demo.load.sender" in line for line in started(tmp_path)), 30.0)
        order(address, "freeze")
        found: list[psutil.Process] = []
        wait_until("the store is stopped", lambda: found.extend(stopped(tmp_path)) or found)
        [store] = found
        assert len(processes_of(tmp_path)) >= 6, "process, gateway, Redis, API, worker, load"

        os.kill(process.pid, number)

        assert process.communicate(timeout=150) == ("", text)
        assert process.returncode == code
        wait_until("the store has ended", lambda: not store.is_running(), 30.0)


def started(folder: Path) -> list[str]:
    return command_lines(processes_of(folder))
