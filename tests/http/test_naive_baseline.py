"""The naive baseline: the same contract and work as the real API, done while the client waits."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab import result
from overload_demo.lab.naive_api import require_checkout, run_baseline
from overload_demo.lab.result import VARIANTS, BaselineRecording, Variant, recorded_baseline
from overload_demo.load import LoadPlan, Shape, run_load
from tests.support.commands import run_module
from tests.support.waiting import wait_until

JOB = {"name": "ada", "value": 42, "message": "hello"}
URL = "http://127.0.0.1"
OVERLOAD: dict[str, Any] = {"requests": 600, "rate_per_s": 300.0, "shape": Shape.CONSTANT, "timeout_s": 1.0}


class Client:
    """A client of one server; every call opens a connection."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self.call("GET", "/stats")[1]
        return stats


@contextlib.contextmanager
def naive(variant: Variant, delay_s: float) -> Iterator[Client]:
    arguments = ["--port", "0", "--variant", variant, "--delay", str(delay_s), "--parent-pipe"]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.naive_sync", *arguments],
        cwd=require_checkout(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        client = Client(json.loads(process.stdout.readline())["url"])
        try:
            yield client
        finally:
            os.kill(process.pid, signal.SIGINT)  # the parent handles it: the server must not end by this ...
            assert client.call("GET", "/stats")[0] == 200
            process.stdin.close()  # ... but by this
            process.wait(10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_response_holds_the_result(variant: Variant) -> None:
    with naive(variant, 0.0) as client:
        status, answer = client.call("POST", "/jobs", JOB)
        stats = client.stats()

    assert status == 200
    assert answer["status"] == "done"
    assert answer["job_id"].startswith("job_")
    assert answer["result"]["message"] == "Demo processing complete for 'ada'"
    assert answer["result"]["input_echo"] == JOB | {"processed_value": 84}
    assert (stats["in_flight"], stats["completed"], stats["variant"]) == (0, 1, variant)
    assert (stats["slot_capacity_per_s"] is None) == (variant == "def-no-slot")


@pytest.mark.parametrize("variant", VARIANTS)
def test_bad_input_is_refused_before_any_work(variant: Variant) -> None:
    with naive(variant, 0.0) as client:
        assert client.call("POST", "/jobs", {"name": "ada"})[0] == 422
        assert client.stats()["completed"] == 0


def test_requests_that_wait_for_the_slot_are_in_flight() -> None:
    with naive("def-slot", 0.5) as client:
        clients = [threading.Thread(target=client.call, args=("POST", "/jobs", JOB)) for _ in range(5)]
        for thread in clients:
            thread.start()

        def others_wait() -> bool:
            now = client.stats()
            return now["in_flight"] > 1 and now["in_flight"] + now["completed"] == 5

        wait_until("the others wait for the slot", others_wait)
        for thread in clients:
            thread.join()
        stats = client.stats()

    assert (stats["in_flight"], stats["completed"]) == (0, 5)
    assert 0 < stats["slot_capacity_per_s"] <= 1 / 0.5


def test_blocking_the_event_loop_blocks_everything_else() -> None:
    with naive("async-blocking", 0.5) as client:
        waiting = threading.Thread(target=client.call, args=("POST", "/jobs", JOB))
        waiting.start()
        seen: list[dict[str, Any]] = []
        wait_until("the job was done", lambda: seen.append(client.stats()) or seen[-1]["completed"] == 1)
        waiting.join()

        assert {one["in_flight"] for one in seen} == {0}, "no response comes while the job is done"


def completed_per_s(variant: Variant) -> float:
    async def measure(url: str) -> float:
        plan = LoadPlan(url, requests=5000, connections=32, success_status=200, max_duration_s=2.0)
        return (await run_load(plan)).summary().accepted_per_s

    with naive(variant, 0.1) as client:
        return asyncio.run(measure(client.url))


@pytest.mark.exhaustive
def test_threads_win_only_without_the_scarce_resource() -> None:
    capacity_per_s = 1 / 0.1

    blocking, with_slot, without_slot = (completed_per_s(variant) for variant in VARIANTS)

    assert blocking <= capacity_per_s
    assert with_slot <= capacity_per_s
    assert without_slot > 3 * max(blocking, with_slot)


@pytest.mark.exhaustive
def test_a_live_run_shows_the_effect_of_overload() -> None:
    run = asyncio.run(run_baseline("def-slot", LoadPlan(URL, **OVERLOAD, max_duration_s=1.0), delay_s=0.02))

    assert run.summary.planned == 301
    assert run.summary.not_fired == 299
    assert run.summary.read_timeout > 0
    assert run.slot_capacity_per_s is not None
    assert run.capacity_per_s <= 1 / 0.02
    assert max(run.series.in_flight) > 100
    assert max(run.series.app_in_flight) > 100
    same = {**OVERLOAD, "max_duration_s": 1.0}
    assert run.matches(LoadPlan(URL, **same), 0.02)
    assert not run.matches(LoadPlan(URL, **same), 0.01)
    for other in ({"timeout_s": 2.0}, {"shape": Shape.SPIKE}, {"requests": 599}, {"max_duration_s": None}):
        assert not run.matches(LoadPlan(URL, **same | other), 0.02)


@pytest.mark.exhaustive
def test_the_runner_writes_a_file_the_lab_can_read(tmp_path: Path) -> None:
    spike = "--requests 100 --rate 300 --timeout 1"
    options = f"--variants def-slot --delay 0.01 {spike} --multiples 0.5 --capacity 100 --constant-s 0.5"
    command = [sys.executable, "-m", "experiments.record_baseline", *options.split(), "--output", str(tmp_path)]

    done = subprocess.run(command, cwd=require_checkout(), capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert "slot" in done.stdout
    constant, spike = recorded_baseline(tmp_path)
    assert (constant.requests, constant.rate_per_s, constant.shape) == (25, 50.0, Shape.CONSTANT)
    assert spike.matches(LoadPlan(URL, 100, 300.0, timeout_s=1.0), 0.01)
    assert (tmp_path / "naive_def-slot.json").stat().st_size < 300_000
    assert (tmp_path / "naive_def-slot.png").stat().st_size > 10_000


def test_recorded_runs_of_the_checkout_can_be_read() -> None:
    assert {run.variant for run in recorded_baseline()} <= set(VARIANTS)


def test_a_file_of_another_form_is_refused_in_one_line(tmp_path: Path) -> None:
    recording = BaselineRecording(command="python", runs=[]).model_dump() | {"schema_version": 99}
    (tmp_path / "naive_def-slot.json").write_text(json.dumps(recording))

    with pytest.raises(ConfigurationError, match="schema_version") as caught:
        recorded_baseline(tmp_path)

    assert "\n" not in str(caught.value)


def test_without_a_checkout_the_live_run_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(result.overload_demo, "__file__", str(tmp_path / "overload_demo" / "__init__.py"))

    with pytest.raises(ConfigurationError, match="needs a checkout"):
        asyncio.run(run_baseline("def-slot", LoadPlan(URL, 1, 1.0), 0.0))
    assert recorded_baseline() == []


def test_an_app_that_does_not_start_reports_the_reason() -> None:
    with pytest.raises(OverloadDemoError, match="did not start"):
        asyncio.run(run_baseline("nonsense", LoadPlan(URL, 1, 1.0), 0.0))  # type: ignore[arg-type]


def test_a_port_that_no_socket_can_have_is_a_usage_error() -> None:
    outcome = run_module("experiments.naive_sync", "--port", "70000", cwd=require_checkout())

    assert outcome.returncode == 2
    assert "65535" in outcome.stderr and "Traceback" not in outcome.stderr
