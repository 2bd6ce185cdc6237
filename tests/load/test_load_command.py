"""``python -m overload_demo.load``: exit status, output and signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.load import scripted_server as scripted
from tests.load.scripted_server import ScriptedServer, closed_port, scripted_server
from tests.support.cases import plain_first
from tests.support.commands import run_module
from tests.support.waiting import wait_until

COMMAND = [sys.executable, "-m", "overload_demo.load"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_module(COMMAND[-1], *arguments)


def start(server: ScriptedServer, **environment: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A command in the middle of a long load, in a separate session, and its load processes."""
    arguments = [server.url, "--requests", "10000", "--rate", "100", "--processes", "2"]
    command = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | environment,
    )
    wait_until("the load has begun", lambda: server.bodies, timeout_s=30)
    children = psutil.Process(command.pid).children(recursive=True)
    assert len(children) == 2
    return command, children


def test_everything_accepted_exits_with_zero() -> None:
    with scripted_server(scripted.accept) as server:
        done = run(server.url, "--requests", "50", "--rate", "500")

    assert done.returncode == 0, done.stderr
    assert "accepted" in done.stdout
    assert "verdict" in done.stdout


def test_a_refused_request_exits_with_one() -> None:
    with scripted_server(scripted.refuse_with_503) as server:
        done = run(server.url, "--requests", "10", "--rate", "500")

    assert done.returncode == 1
    assert "status 503" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["http://127.0.0.1:1", "--requests", "0"],
        ["http://127.0.0.1:1", "--requests", "-3"],
        ["http://127.0.0.1:1", "--rate", "0"],
        ["http://127.0.0.1:1", "--shape", "zigzag"],
        ["127.0.0.1:1"],
        ["http://example.com"],
        ["http://127.0.0.1:1", "--connections", "8"],
        ["http://ada:secret@127.0.0.1:1"],
        ["http://ada:secret@127.0.0.1:port"],
    ],
)
def test_invalid_arguments_exit_with_two_and_one_line(arguments: list[str]) -> None:
    done = run(*arguments)

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


def test_a_closed_loop_of_fewer_clients_than_processes_sends_every_request_into_a_new_folder(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    with scripted_server(scripted.accept) as server:
        few = ["--requests", "100", "--closed", "--connections", "1", "--processes", "4"]
        done = run(server.url, *few, "--output", str(folder))

    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "load.json").read_text())["summary"]
    assert (summary["accepted"], summary["not_fired"], summary["mode"]) == (100, 0, "closed loop")


def test_results_that_cannot_be_written_are_reported_before_the_load(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with scripted_server(scripted.accept) as server:
        done = run(server.url, "--requests", "5", "--output", str(tmp_path / "file"))

        assert done.returncode == 2 and "file" in done.stderr
        assert not server.bodies


def test_a_folder_or_a_full_disk_that_takes_no_results_is_an_error_in_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full: writing to a full disk is not tried")
    (tmp_path / "file").touch()
    (tmp_path / "load.json").symlink_to("/dev/full")
    with scripted_server(scripted.accept) as server:
        errors = [
            run(server.url, "--requests", "5", "--output", str(folder)).stderr
            for folder in (tmp_path / "file" / "below", tmp_path)
        ]

    full = "error: cannot write the results: [Errno 28] No space left on device\n"
    assert errors == [f"error: {tmp_path}/file/below: Not a directory\n", full]


def test_an_unreachable_target_is_reported_before_the_load() -> None:
    with closed_port() as url:
        done = run(url)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Connection refused" in done.stderr
    assert "accepted" not in done.stdout


@pytest.mark.parametrize(("number", "status"), plain_first([(signal.SIGINT, 130), (signal.SIGTERM, 143)]))
def test_a_stop_signal_ends_command_and_load_processes(number: signal.Signals, status: int) -> None:
    with scripted_server(scripted.accept) as server:
        command, children = start(server)
        os.killpg(command.pid, number)  # as a terminal does: to the whole group
        _, errors = command.communicate(timeout=60)

    assert command.returncode == status
    assert len(errors.splitlines()) == 1
    assert not [child for child in children if child.is_running()]


def test_a_killed_command_leaves_no_load_process_and_no_file(tmp_path: Path) -> None:
    with scripted_server(scripted.accept) as server:
        command, children = start(server, TMPDIR=str(tmp_path))
        assert list(tmp_path.iterdir())
        command.kill()
        command.communicate()
        wait_until("the load processes are gone", lambda: not any(map(psutil.Process.is_running, children)))

    assert list(tmp_path.iterdir()) == []


def test_requests_beyond_the_cap_of_sockets_are_dropped(tmp_path: Path) -> None:
    arguments = [
        "--requests",
        "300",
        "--rate",
        "1000",
        "--shape",
        "constant",
        "--timeout",
        "1",
        "--output",
        str(tmp_path),
    ]

    with scripted_server(scripted.stay_silent) as server:
        few_descriptors = ["bash", "-c", 'ulimit -n 100; exec "$@"', "bash"]
        done = subprocess.run([*few_descriptors, *COMMAND, server.url, *arguments], timeout=60, check=False)

    summary = json.loads((tmp_path / "load.json").read_text())["summary"]
    assert done.returncode == 1
    assert (summary["planned"], summary["sent"], summary["dropped"]) == (300, 36, 264)
    assert summary["read_timeout"] == 36
    assert summary["verdict"] == "generator-bound"
