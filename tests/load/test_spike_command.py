"""``overload-demo spike`` accounts for every job, and fails when one is lost or duplicated."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from overload_demo.config import load_settings
from overload_demo.lab import plots
from overload_demo.lab.job_log import read_events
from overload_demo.lab.result import SpikeResult
from overload_demo.lab.simulated_cloud import SimulatedCloud
from overload_demo.lab.spike_plan import sized_delay_s
from overload_demo.queue.protocol import Protocol
from overload_demo.rest import Address
from overload_demo.store.connect import EmbeddedStore
from overload_demo.store.data_dir import DataDir
from tests.support.commands import run_module
from tests.support.stores import Rest, standalone_store
from tests.support.waiting import wait_until

SPIKE = [sys.executable, "-m", "overload_demo", "spike", "--baseline", "none"]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("UPSTASH", "OVERLOAD", "WORKER"))}


def run_spike(folder: Path, *options: str, timeout_s: float = 90.0) -> "subprocess.CompletedProcess[str]":
    return run_module(*SPIKE[2:], *options, env=clean_environment(), cwd=folder, timeout_s=timeout_s)


@contextmanager
def running_spike(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*SPIKE, *options],
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def the_result(folder: Path) -> SpikeResult:
    [path] = folder.glob("runs/*/result.json")
    return SpikeResult.read(path)


def processes_living_in(folder: Path) -> list[str]:
    """Processes that were started for a run below ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            paths = [process.cwd(), *process.cmdline(), process.environ().get("OVERLOAD_DATA_DIR", "")]
        except psutil.Error:
            continue
        if any(str(folder) in text for text in paths):
            found.append(" ".join(paths[1:-1]))
    return found


def test_a_spike_is_absorbed_and_every_request_accounted_for(tmp_path: Path) -> None:
    outcome = run_spike(tmp_path, "--requests", "1500", "--rate", "500", "--processing-delay", "0.001")

    result = the_result(tmp_path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert (result.offered, result.accepted, result.done) == (1500, 1500, 1500)
    assert (result.lost, result.duplicated, result.failed, result.errors) == (0, 0, 0, {})
    assert result.series.settled[-1] == 1500
    assert result.conditions.durability == "always"
    assert {"api", "worker", "gateway", "redis"} <= set(result.peak_memory_mb)
    assert result.upstash_commands is not None
    scripts, commands = result.upstash_commands
    assert 0 < scripts < commands
    assert f"{scripts:,} to {commands:,}, $" in outcome.stdout
    assert "1,500 of 1,500 requests were accepted" in plots.spike(result).alt
    [figure] = tmp_path.glob("runs/*/figure.png")
    assert figure.stat().st_size > 10_000
    wait_until("no process of the run is left", lambda: not processes_living_in(tmp_path))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "options",
    [["--requests", "1000"], ["--requests", "3000", "--rate", "1430"]],
)
def test_without_a_given_delay_the_work_is_sized_so_that_a_queue_grows(tmp_path: Path, options: list[str]) -> None:
    outcome = run_spike(tmp_path, *options)

    result = the_result(tmp_path)
    asked = result.conditions
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert asked.processing_delay_s == sized_delay_s(asked.rate_per_s)
    assert result.peak_queue_depth > 0.3 * result.offered
    assert result.drain_rate_per_s <= result.capacity_per_s <= 1 / asked.processing_delay_s
    assert "SHOWS NOTHING" not in outcome.stdout


def test_one_injected_loss_and_one_duplicate_are_reported_and_fail_the_run(tmp_path: Path) -> None:
    with running_spike(tmp_path, "--requests", "70", "--rate", "300", "--processing-delay", "0.05") as spike:
        data_dir = wait_for_data_dir(tmp_path)
        wait_until("all are accepted", lambda: counts(data_dir)["accepted"] == 70)
        wait_until("some are done", lambda: counts(data_dir)["done"] >= 5)

        key = Protocol().key("queue")
        exchange(data_dir, "RPOP", key)  # an accepted job is lost from the queue
        repeated = first_done_job(tmp_path)
        exchange(data_dir, "HSET", f"job:{repeated}", "status", "queued")  # a finished one is queued again
        exchange(data_dir, "RPUSH", key, repeated)
        output, _ = spike.communicate(timeout=100)

    result = the_result(tmp_path)
    assert spike.returncode == 1
    assert (result.accepted, result.lost, result.duplicated) == (70, 1, 1)
    assert "1 lost, 1 duplicated" in output
    assert f"duplicated {repeated}" in result.examples


@pytest.mark.exhaustive
def test_a_killed_worker_and_redis_lose_no_job_and_their_counts_are_unknown(tmp_path: Path) -> None:
    with running_spike(tmp_path, "--requests", "1500", "--rate", "500", "--processing-delay", "0.001") as spike:
        data_dir = wait_for_data_dir(tmp_path)
        wait_until("some are done", lambda: counts(data_dir)["done"] >= 50)

        state = data_dir.read_state()
        assert state is not None
        [redis] = psutil.Process(state.pid).children()
        [worker] = [one for one in psutil.Process(spike.pid).children() if "overload_demo.worker" in one.cmdline()]
        redis.kill()
        worker.kill()
        spike.communicate(timeout=80)

    result = the_result(tmp_path)
    assert (result.accepted, result.done, result.lost) == (1500, 1500, 0)
    assert result.restarts == {"worker": 1}
    assert result.rest_calls_per_job is None
    assert result.store_commands_per_job is None
    assert result.upstash_commands is None


@pytest.mark.parametrize("answer", ["n\n", pytest.param("y\n", marks=pytest.mark.exhaustive)])
def test_on_upstash_the_cost_is_estimated_first_and_no_key_of_the_run_is_left(tmp_path: Path, answer: str) -> None:
    with (
        standalone_store(tmp_path / "database") as database,
        SimulatedCloud(Address(database.url, SecretStr(database.token))).serving() as far,
    ):
        far.round_trip_s = 0.05
        access = {"UPSTASH_REDIS_REST_URL": far.address.url, "UPSTASH_REDIS_REST_TOKEN": database.token}
        database.run("SET", "other", "data")
        outcome = subprocess.run(
            [*SPIKE, "--upstash", "--requests", "1000"],
            cwd=tmp_path,
            env=clean_environment() | access,
            input=answer,
            capture_output=True,
            text=True,
            timeout=90.0,
        )
        left = database.run("KEYS", "*")

    assert "about 50 calls: 100 commands where a script counts as one (0.0 % of the 500,000 free" in outcome.stdout
    assert left == ["other"]
    if answer == "y\n":
        result = the_result(tmp_path)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        assert (result.accepted, result.done, result.lost, result.duplicated) == (1000, 1000, 0, 0)
        assert (result.conditions.store, result.conditions.rate_chosen_by) == ("upstash", "default")
    else:
        assert outcome.returncode == 1
        assert not list(tmp_path.glob("runs/*/result.json"))


@pytest.mark.parametrize(
    ("send", "number", "status"),
    [
        (os.killpg, signal.SIGINT, 130),  # as a Ctrl-C in a terminal does
        pytest.param(os.kill, signal.SIGTERM, 143, marks=pytest.mark.exhaustive),
    ],
)
def test_an_interrupted_spike_leaves_nothing_behind(
    tmp_path: Path, send: Callable[[int, int], None], number: int, status: int
) -> None:
    with running_spike(tmp_path, "--requests", "5000", "--rate", "300") as spike:
        data_dir = wait_for_data_dir(tmp_path)
        wait_until("the spike is under way", lambda: counts(data_dir)["accepted"] > 50)

        send(spike.pid, number)

        assert spike.wait(timeout=60) == status
    wait_until("no process of the run is left", lambda: not processes_living_in(tmp_path))


@pytest.mark.exhaustive
def test_a_killed_spike_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_spike(tmp_path, "--requests", "5000", "--rate", "300") as spike:
        data_dir = wait_for_data_dir(tmp_path)
        wait_until("the spike is under way", lambda: counts(data_dir)["accepted"] > 50)

        spike.kill()

    wait_until("no process of the run is left", lambda: not processes_living_in(tmp_path), timeout_s=30.0)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--requests", "0"], "requests"),
        (["--requests", "-5"], "requests"),
        (["--rate", "0"], "rate"),
        (["--rate", "nan"], "rate"),
        (["--processes", "0"], "processes"),
        (["--processing-delay", "-1"], "WORKER_PROCESSING_DELAY"),
        (["--upstash"], "UPSTASH_REDIS_REST_URL"),
        (["--kill-primary"], "error: --kill-primary needs a cluster: --nodes 6"),
        (["--nodes", "4"], "error: OVERLOAD_NODES: must be 1, or an even number from 6 on"),
    ],
)
def test_invalid_input_is_one_line_and_starts_nothing(tmp_path: Path, options: list[str], complaint: str) -> None:
    outcome = run_spike(tmp_path, *options)

    assert outcome.returncode in (1, 2)
    assert re.search(complaint, outcome.stderr, re.IGNORECASE), outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert (outcome.stdout, list(tmp_path.iterdir())) == ("", [])


def test_reset_empties_a_data_dir(tmp_path: Path) -> None:
    environment = clean_environment() | {"OVERLOAD_DATA_DIR": str(tmp_path / "data")}
    settings = load_settings(overload_data_dir=tmp_path / "data")
    with stored_job(settings):
        pass

    outcome = run_module("overload_demo", "reset", "--yes", env=environment)

    assert outcome.returncode == 0, outcome.stderr
    with held_store(settings) as data_dir:
        assert exchange(data_dir, "DBSIZE") == 0


def wait_for_data_dir(folder: Path) -> DataDir:
    wait_until("the run's store serves", lambda: list(folder.glob("runs/*/store-1/state.json")), timeout_s=30.0)
    [state] = folder.glob("runs/*/store-1/state.json")
    return DataDir(state.parent)


def exchange(data_dir: DataDir, *command: str) -> Any:
    state = data_dir.read_state()
    assert state is not None, "no store serves this directory"
    return Rest(data_dir.address(state).url, state.token).run(*command)


def counts(data_dir: DataDir) -> dict[str, int]:
    flat = exchange(data_dir, "HGETALL", Protocol().key("stats"))
    named: dict[str, Any] = dict(zip(flat[::2], flat[1::2], strict=True))
    return {"accepted": int(named.get("accepted", 0)), "done": int(named.get("done", 0))}


def first_done_job(folder: Path) -> str:
    [log] = folder.glob("runs/*/run-1/effects.log")
    return next(event.job_id for event in read_events(log) if event.what == "effect")


@contextmanager
def held_store(settings: Any) -> Iterator[DataDir]:
    with EmbeddedStore(settings.overload_data_dir, settings):
        yield DataDir(settings.overload_data_dir)


@contextmanager
def stored_job(settings: Any) -> Iterator[None]:
    with held_store(settings) as data_dir:
        exchange(data_dir, "SET", "job:left-over", json.dumps({}))
        yield


@pytest.mark.exhaustive
def test_a_spike_loses_nothing_when_a_primary_of_its_cluster_is_killed(tmp_path: Path) -> None:
    options = "--requests", "4000", "--rate", "400", "--baseline", "none", "--processing-delay", "0.0004"

    done = run_spike(tmp_path, "--nodes", "6", "--kill-primary", *options)

    [path] = tmp_path.glob("runs/*/result.json")
    result = SpikeResult.read(path)
    assert (result.accepted + sum(result.errors.values()), result.lost) == (4000, 0), result.errors
    assert "primary killed at" in done.stdout
    assert (result.conditions.nodes, result.conditions.durability) == (6, "always+1")
    assert (path.parent / "recovery.png").stat().st_size > 10_000
