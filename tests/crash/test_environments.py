"""Commands in unusual environments: no home, no working directory, a full disk, the user's own module names."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.store.connect import Store
from overload_demo.store.data_dir import DataDir
from tests.support.cases import plain_first
from tests.support.running import api_process, environment, submit, wait_for

# An unknown user without HOME; the tests' own user may be any.
WITHOUT_HOME = """
import os, pwd, runpy, sys
def unknown(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
os.environ.pop("HOME", None)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
OWN_MODULES = ("queue", "logging", "json", "random", "select", "email")


def run(folder: Path, *command: str, **variables: object) -> "subprocess.CompletedProcess[str]":
    env = environment(folder, **variables)
    return subprocess.run([sys.executable, *command], env=env, cwd=folder, capture_output=True, text=True, timeout=60)


def the_error(outcome: "subprocess.CompletedProcess[str]") -> str:
    assert outcome.returncode == 1, outcome.stderr
    [line] = [line for line in outcome.stderr.splitlines() if not line.startswith("20")]  # but for log lines
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("module", plain_first(["overload_demo.worker", "overload_demo.api", "overload_demo.store"]))
def test_without_a_home_a_missing_data_directory_is_a_one_line_error(tmp_path: Path, module: str) -> None:
    outcome = run(tmp_path, "-c", WITHOUT_HOME, module, OVERLOAD_DATA_DIR="")

    assert "OVERLOAD_DATA_DIR" in the_error(outcome)
    assert not list(tmp_path.glob("~*"))


def test_without_a_home_a_worker_on_upstash_works(tmp_path: Path, store_on_a_port: Store) -> None:
    address = store_on_a_port[0]
    access = {"UPSTASH_REDIS_REST_URL": address.url, "UPSTASH_REDIS_REST_TOKEN": address.token.get_secret_value()}
    own = {"OVERLOAD_DATA_DIR": "", "OVERLOAD_KEY_PREFIX": "homeless:", "WORKER_ID": "homeless"}

    outcome = run(tmp_path, "-c", WITHOUT_HOME, "overload_demo.worker", "--until-empty", **access, **own)

    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize("name", ["OVERLOAD_DATA_DIR", "OVERLOAD_REDIS_SERVER", "WORKER_EFFECT_LOG"])
def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, "~/x")

    assert getattr(load_settings(), name.lower()) == tmp_path / "x"


def test_the_home_of_an_unknown_user_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERLOAD_DATA_DIR", "~no-such-user/x")

    with pytest.raises(ConfigurationError, match="OVERLOAD_DATA_DIR: ~no-such-user/x: no such home"):
        DataDir(load_settings().overload_data_dir)


@pytest.mark.exhaustive
def test_a_deleted_working_directory_is_one_line_where_a_path_depends_on_it(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["/bin/sh", "-c", f'rmdir "{gone}"; exec "{sys.executable}" -P -m overload_demo.worker --until-empty']

    def outcome(**variables: object) -> "subprocess.CompletedProcess[str]":
        gone.mkdir(exist_ok=True)
        env = environment(tmp_path, **variables)
        return subprocess.run(command, env=env, cwd=gone, capture_output=True, text=True, timeout=60)

    assert "the working directory no longer exists" in the_error(outcome(OVERLOAD_DATA_DIR="data"))
    assert "WORKER_HANDLER" in the_error(outcome(WORKER_HANDLER="nowhere:nothing"))
    assert outcome().returncode == 0


@pytest.fixture
def course_folder(tmp_path: Path) -> Path:
    """A student's folder, whose modules have names of the standard library."""
    folder = tmp_path / "course"
    folder.mkdir()
    for name in OWN_MODULES:
        (folder / f"{name}.py").write_text("raise RuntimeError('shadowed')\n")
    (folder / "own_work.py").write_text("def work(payload):\n    return {'own': payload['value']}\n")
    return folder


@pytest.mark.exhaustive
def test_the_users_own_queue_py_shadows_nothing_and_their_handler_is_found(course_folder: Path) -> None:
    with api_process(course_folder.parent) as (_, client):
        [job_id] = submit(client)

        env = environment(course_folder.parent, WORKER_HANDLER="own_work:work")
        command = [sys.executable, "-m", "overload_demo.worker", "--until-empty"]
        outcome = subprocess.run(command, env=env, cwd=course_folder, capture_output=True, text=True, timeout=60)

        assert outcome.returncode == 0, outcome.stderr
        wait_for(client, [job_id])
        assert client.get(f"/jobs/{job_id}").json()["result"] == {"own": 0}


@pytest.mark.exhaustive
def test_children_started_in_a_folder_with_a_queue_py_run(course_folder: Path) -> None:
    (course_folder / "types.py").write_text("raise RuntimeError('shadowed')\n")  # -m itself imports it
    env = environment(course_folder.parent)
    script = "from overload_demo.cli.application import main; main()"  # no working directory on the path
    options = ["spike", "--requests", "20", "--rate", "100", "--baseline", "none"]
    outcome = subprocess.run(
        [sys.executable, "-P", "-c", script, *options],
        **{"env": env, "cwd": course_folder, "capture_output": True, "text": True, "timeout": 90},
    )

    assert outcome.returncode == 0, outcome.stderr
    assert "20 of 20 accepted" in " ".join(outcome.stdout.split())


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://127.0.0.1:port", 5, None])
def test_a_damaged_state_file_is_no_state(tmp_path: Path, url: object) -> None:
    data_dir = DataDir(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps({"url": url, "token": "t", "pid": 1, "durability": "always"}))

    assert data_dir.read_state() is None


def test_a_store_starts_over_a_damaged_state_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    state = {"url": "http://127.0.0.1:99999", "token": "t", "pid": 1, "durability": "always"}
    (tmp_path / "data" / "state.json").write_text(json.dumps(state))

    outcome = run(tmp_path, "-m", "overload_demo.worker", "--until-empty", OVERLOAD_DATA_DIR=tmp_path / "data")

    assert outcome.returncode == 0, outcome.stderr


@contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """A file system of 40 KB without room for one byte more, and an empty directory on it."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a file system")
    try:
        (folder / "data").mkdir(mode=0o700)
        (folder / "filling").write_bytes(b"")
        with pytest.raises(OSError, match="No space left"):
            (folder / "filling").write_bytes(b"." * 100_000)
        yield folder / "data"
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_at_start_is_one_line_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with full_disk(tmp_path / "disk") as data_dir:
        outcome = run(tmp_path, "-m", "overload_demo.worker", "--until-empty", OVERLOAD_DATA_DIR=data_dir)

    assert f"cannot write to the data directory {data_dir}: No space left on device" in the_error(outcome)
