"""Several API processes on one port: their parent owns the sockets, so a killed process loses no waiting connection."""

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from overload_demo.api.front_door import parent as parent_module
from overload_demo.api.front_door.parent import Parent
from overload_demo.http_server import url_of
from overload_demo.load import LoadPlan, LoadProgress, LoadResult, LoadSummary, Shape, run_load
from overload_demo.process import Child
from tests.support.cases import plain_first
from tests.support.running import JOB, child, environment, free_port, listening, send_signal
from tests.support.waiting import wait_until


@contextmanager
def parent_of(processes: int, folder: Path, **variables: object) -> Iterator[tuple[Child, str]]:
    """The API with this number of processes, all serving; yields the parent and the URL."""
    parent = child("overload_demo.api", "--port", "0", "--processes", str(processes), folder=folder, **variables)
    parent.start()
    try:
        where = rf"{processes} processes serve at (\S+)"
        wait_until("all serve", lambda: re.search(where, parent.log.read_text()), timeout_s=30.0)
        yield parent, re.findall(where, parent.log.read_text())[0]
    finally:
        parent.stop()


def serving(parent: Child) -> set[int]:
    """The API's serving processes; the store may be a child of the parent too."""
    assert parent.pid is not None
    found = set()
    for one in psutil.Process(parent.pid).children():
        with suppress(psutil.Error):
            found |= {one.pid} if "overload_demo.api" in one.cmdline() else set()
    return found


def fire(url: str, count: int, once_let_in: Callable[[], object] | None = None) -> LoadSummary:
    """A crowd that arrives at one moment; ``once_let_in`` is called, in a thread, after the first responses.

    The first report of progress comes within 0.3 s: a smaller crowd could be gone by then.
    """
    called: list[asyncio.Future[object]] = []

    def watch(progress: LoadProgress) -> None:
        if once_let_in and progress.accepted and not called:
            assert progress.accepted < count, "the crowd is gone already"
            called.append(asyncio.ensure_future(asyncio.to_thread(once_let_in)))

    async def run() -> LoadResult:
        plan = LoadPlan(url, requests=count, shape=Shape.AT_ONCE, timeout_s=60)
        result = await run_load(plan, on_progress=watch)
        await asyncio.gather(*called)
        assert len(called) == bool(once_let_in)
        return result

    return asyncio.run(run()).summary()


@pytest.mark.parametrize("crowd", plain_first([3_000, 6_000]))
def test_a_rolling_restart_loses_no_request_of_a_crowd(
    tmp_path: Path, own_queue: dict[str, object], crowd: int
) -> None:
    with parent_of(2, tmp_path, **own_queue, OVERLOAD_MAX_CONNECTIONS=8) as (parent, url):
        old = serving(parent)
        assert len(old) == 2

        summary = fire(url, crowd, lambda: send_signal(parent, signal.SIGHUP))
        wait_until("both are new", lambda: len(serving(parent)) == 2 and not serving(parent) & old)

        assert (summary.accepted, summary.failures) == (crowd, {})
        assert httpx.get(f"{url}/queue/stats", trust_env=False).json()["accepted"] == crowd


@pytest.mark.parametrize("crowd", plain_first([3_000, 6_000]))
def test_a_killed_process_is_restarted_and_waiting_connections_are_answered(
    tmp_path: Path, own_queue: dict[str, object], crowd: int
) -> None:
    with parent_of(1, tmp_path, **own_queue, OVERLOAD_MAX_CONNECTIONS=8) as (parent, url):
        [killed] = serving(parent)

        summary = fire(url, crowd, lambda: os.kill(killed, signal.SIGKILL))

        assert summary.accepted >= crowd - 8  # live connections of the killed process may be lost
        wait_until("it is restarted", lambda: len(serving(parent) - {killed}) == 1)
        assert "restarting in" in parent.log.read_text()


@pytest.mark.parametrize("crowd", plain_first([3_000, 6_000]))
def test_a_stop_drains_the_accept_queue_and_leaves_no_process(
    tmp_path: Path, own_queue: dict[str, object], crowd: int
) -> None:
    limits = {"OVERLOAD_MAX_CONNECTIONS": 8, "OVERLOAD_GRACE_S": 30}
    with parent_of(2, tmp_path, **own_queue, **limits) as (parent, url):
        processes = [psutil.Process(pid) for pid in serving(parent)]

        summary = fire(url, crowd, lambda: parent.stop(60.0))

        assert (summary.accepted, summary.failures) == (crowd, {})
        assert not any(one.is_running() for one in processes)


@pytest.mark.exhaustive
@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="needs Linux: limits of another process")
def test_a_parent_without_descriptors_keeps_serving_and_restarts_its_child_later(
    tmp_path: Path, own_queue: dict[str, object]
) -> None:
    with parent_of(2, tmp_path, **own_queue) as (parent, url):
        dead, alive = serving(parent)
        limited = psutil.Process(parent.pid)
        before = limited.rlimit(psutil.RLIMIT_NOFILE)
        limited.rlimit(psutil.RLIMIT_NOFILE, (3, before[1]))
        os.kill(dead, signal.SIGKILL)
        wait_until("the restart fails", lambda: "cannot start an API process" in parent.log.read_text())
        os.kill(limited.pid, signal.SIGHUP)
        wait_until("a replacement fails too", lambda: parent.log.read_text().count("cannot start an API process") > 1)

        assert httpx.post(f"{url}/jobs", json=JOB, trust_env=False, timeout=10.0).status_code == 202
        assert serving(parent) == {alive}
        limited.rlimit(psutil.RLIMIT_NOFILE, before)
        wait_until("two serve again", lambda: len(serving(parent) - {dead}) == 2, timeout_s=30.0)


def test_children_end_when_their_parent_is_killed(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with parent_of(2, tmp_path, **own_queue) as (parent, url):
        processes = [psutil.Process(pid) for pid in serving(parent)]
        assert httpx.post(f"{url}/jobs", json=JOB, trust_env=False).status_code == 202

        parent.kill()

        wait_until("they have ended", lambda: not any(one.is_running() for one in processes))


def test_children_that_cannot_start_are_a_one_line_error(tmp_path: Path, own_queue: dict[str, object]) -> None:
    (tmp_path / "fastapi.py").write_text("raise ImportError('a broken installation')\n")
    port = str(free_port())
    parent = child("overload_demo.api", "--port", port, "--processes", "2", folder=tmp_path, **own_queue)
    parent.start()
    try:
        wait_until("the parent has ended", lambda: parent.pid is None, timeout_s=60.0)

        assert "error: the API could not start" in parent.log.read_text()
    finally:
        parent.stop()


GRACE_S = 1.0
STOP_TIMEOUT_S = 2.0 * GRACE_S + 5.0  # of a parent with that grace, for a child that does not end


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_replacing", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_suspended_children_are_killed_together_after_one_grace_period(
    tmp_path: Path, is_replacing: bool, own_queue: dict[str, object]
) -> None:
    with parent_of(3, tmp_path, **own_queue, OVERLOAD_GRACE_S=GRACE_S) as (parent, _):
        stuck = serving(parent)
        for pid in stuck:
            os.kill(pid, signal.SIGSTOP)
        if is_replacing:
            send_signal(parent, signal.SIGHUP)
            wait_until("a new process replaces the child", lambda: " replaces " in parent.log.read_text(), 20.0)
        began = time.monotonic()
        parent.stop(60.0)
        took_s = time.monotonic() - began

    assert not any(psutil.pid_exists(pid) for pid in stuck)
    assert took_s < 2.5 * STOP_TIMEOUT_S  # one after the other, they take three times as long


# The first process that would serve hangs before it does anything; the parent itself does not serve.
HANG_ONCE = r"""
import pathlib, signal
if b"--ready-fd" in pathlib.Path("/proc/self/cmdline").read_bytes().split(b"\0"):
    try:
        (pathlib.Path(__file__).parent / "one_hangs").touch(exist_ok=False)
        signal.pause()
    except FileExistsError:
        pass
"""


@pytest.mark.exhaustive
def test_a_child_that_hangs_at_its_start_is_restarted_while_the_others_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANG_ONCE)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(parent_module, "READY_WITHIN_S", 3600.0)
    with listening() as listeners:
        parent = Parent(listeners, 2, 1.0)
        runner = threading.Thread(target=parent.run)
        runner.start()
        try:
            wait_until("one hangs", (tmp_path / "one_hangs").exists)
            wait_until("the other serves", lambda: _accepts(url_of(listeners)), timeout_s=60.0)
            [hanging] = {child.process.pid for child in parent._children} - set(_ready(parent))
            monkeypatch.setattr(parent_module, "READY_WITHIN_S", 0.0)  # as if that time had passed
            wait_until("the hanging one is killed", lambda: not psutil.pid_exists(hanging or 0))
            monkeypatch.setattr(parent_module, "READY_WITHIN_S", 3600.0)
            wait_until("it is replaced", lambda: len(_ready(parent)) == 2, timeout_s=60.0)
            assert runner.is_alive()
        finally:
            parent.stop()
            runner.join(30.0)
    assert not runner.is_alive()


def test_a_first_child_that_cannot_be_started_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Child) -> None:
        raise OSError("out of processes")

    monkeypatch.setattr(Child, "start", fail)
    with listening() as listeners, pytest.raises(OSError, match="out of processes"):
        Parent(listeners, 2, 1.0).run()


def _accepts(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.post(f"{url}/jobs", json=JOB, trust_env=False, timeout=10.0).status_code == 202
    return False


def _ready(parent: Parent) -> list[int | None]:
    return [child.process.pid for child in parent._children if child.is_ready()]
