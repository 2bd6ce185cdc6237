"""A data directory or its locks are removed while a store runs: acceptance stops, two servers never run at once."""

import contextlib
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from overload_demo.config import load_settings
from overload_demo.errors import StoreUnavailableError
from overload_demo.store.connect import EmbeddedStore
from tests.support.cases import plain_first
from tests.support.running import JOB, make_settings, serving_api, submit
from tests.support.stores import (
    Rest,
    gateway_pid,
    no_process_left_in,
    processes_of,
    read_connection_lines,
    servers_of,
    start_standalone,
    stop,
    wait_until_no_process_in,
)
from tests.support.waiting import wait_until

LOCKS = ("users.lock", "start.lock", "gateway.lock", "redis.lock")


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    with no_process_left_in(tmp_path / "data") as path:
        yield path


def remove_all(data_dir: Path) -> None:
    shutil.rmtree(data_dir)


def remove_locks(data_dir: Path) -> None:
    for name in LOCKS:
        (data_dir / name).unlink()


def remove_data_files(data_dir: Path) -> None:
    for file in data_dir.glob("appendonlydir/*"):
        file.unlink()


def remove_one_data_file(data_dir: Path) -> None:
    [file] = data_dir.glob("appendonlydir/*.incr.aof")
    file.unlink()


def move_away(data_dir: Path) -> None:
    data_dir.rename(data_dir.with_name("elsewhere"))


@pytest.mark.parametrize(
    "remove",
    plain_first([remove_all, move_away, remove_locks, remove_data_files, remove_one_data_file], 2),
    ids=lambda one: one.__name__,
)
@pytest.mark.usefixtures("no_repeats")
def test_acceptance_stops_with_one_log_line_and_a_503(
    tmp_path: Path, data_dir: Path, caplog: pytest.LogCaptureFixture, remove: Callable[[Path], None]
) -> None:
    settings = make_settings(tmp_path)
    with caplog.at_level(logging.ERROR), EmbeddedStore(data_dir, settings) as store:
        opened = store.acquire(), store.refresh
        with serving_api(settings, opened) as client:
            submit(client)
            processes = processes_of(data_dir)
            remove(data_dir)
            wait_until("acceptance stops", lambda: client.post("/jobs", json=JOB).status_code == 503)
            # The server ends first: until the gateway has ended, a request that it holds has an unknown outcome.
            wait_until("server and gateway ended", lambda: not any(one.is_running() for one in processes))
            refused = client.post("/jobs", json=JOB)
            assert refused.status_code == 503
            assert refused.json()["outcome"] == "not_enqueued"
            assert client.get("/health/ready").status_code == 503
    lines = [record.getMessage() for record in caplog.records if record.name == "overload_demo.store.connect"]
    assert len(lines) == 1
    assert str(data_dir) in lines[0]
    assert "removed" in lines[0]


def test_a_standalone_store_prints_one_line_and_ends(data_dir: Path) -> None:
    started = start_standalone(data_dir)
    read_connection_lines(started)
    shutil.rmtree(data_dir)
    code = started.wait(timeout=60)
    errors = stop(started)[1]
    assert code == 1
    assert errors == f"error: {data_dir} was removed or replaced while in use: stopped; start again\n"


@pytest.mark.parametrize("remove", plain_first([remove_all, remove_locks]), ids=lambda one: one.__name__)
def test_a_second_server_never_runs_beside_the_first(data_dir: Path, remove: Callable[[Path], None]) -> None:
    both, seen, done = [], [], threading.Event()
    with EmbeddedStore(data_dir, load_settings()) as first:
        address = first.acquire()
        rest = Rest(address.url, address.token.get_secret_value())
        rest.run("SET", "k", "v")
        [server], gateway = servers_of(data_dir), gateway_pid(data_dir)
        os.kill(gateway, signal.SIGSTOP)  # it cannot react in time
        remove(data_dir)
        watcher = threading.Thread(target=watch, args=(data_dir, server, both, seen, done))
        watcher.start()
        try:
            with EmbeddedStore(data_dir, load_settings()) as second:
                address = second.acquire()
                kept = Rest(address.url, address.token.get_secret_value()).run("GET", "k")
                wait_until("the watcher reports the second", lambda: seen)
        finally:
            os.kill(gateway, signal.SIGCONT)
            done.set()
            watcher.join()
        with pytest.raises(StoreUnavailableError, match="removed or replaced"):
            first.refresh()
    assert both == []
    assert kept == ("v" if remove is remove_locks else None)
    wait_until_no_process_in(data_dir)


def watch(data_dir: Path, first: psutil.Process, both: list[list[int]], seen: list[int], done: threading.Event) -> None:
    """Note each moment at which the first server and another one of the same directory run."""
    while not done.wait(0.005):
        with contextlib.suppress(psutil.Error):
            others = [one.pid for one in servers_of(data_dir) if one.pid != first.pid and "valkey" in one.exe()]
            if others and first.is_running() and first.status() != psutil.STATUS_ZOMBIE:
                both.append(others)
            seen += others


def test_a_store_whose_socket_is_removed_is_started_again(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()) as store:
        address = store.acquire()
        Rest(address.url, address.token.get_secret_value()).run("SET", "k", "v")
        before = gateway_pid(data_dir)
        Path(address.socket).unlink()
        address = store.refresh()
        assert Rest(address.url, address.token.get_secret_value()).run("GET", "k") == "v"
        assert gateway_pid(data_dir) != before
        assert "gateway.sock was removed or replaced" in (data_dir / "store.log").read_text()
    wait_until_no_process_in(data_dir)
    assert "Traceback" not in (data_dir / "store.log").read_text()


def test_a_store_whose_directory_stays_keeps_running(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()) as store:
        address = store.acquire()
        pids = {process.pid for process in processes_of(data_dir)}
        (data_dir / "note").write_text("of the user's own")
        threading.Event().wait(1.2)  # two checks
        assert store.refresh() == address
        assert {process.pid for process in processes_of(data_dir)} == pids
