"""The end of an event loop's child processes, and a loop in a thread."""

import asyncio
import concurrent.futures
import os
import signal
import sys
import threading
from typing import Any

import pytest

from overload_demo.process import CHECK_THREAD_S, LoopThread, kill_and_wait

PYTHON_THAT_WAITS = (sys.executable, "-S", "-c", "import sys; print(flush=True); sys.stdin.read()")


async def child() -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *PYTHON_THAT_WAITS, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


def test_a_killed_child_is_gone() -> None:
    async def start_and_end() -> int:
        process = await child()
        await kill_and_wait(process)
        await kill_and_wait(process)  # repeating is harmless
        return process.pid

    with pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(start_and_end()), 0)


def test_a_child_that_ends_at_the_same_time_is_not_reported_as_unknown(caplog: pytest.LogCaptureFixture) -> None:
    """A stop signal to the process group reaches parent and child at once."""

    async def race() -> list[int | None]:
        codes = []
        for distance in range(60):
            process = await child()
            os.kill(process.pid, signal.SIGTERM)
            sum(range(500 * distance))  # up to about a millisecond later
            await kill_and_wait(process)
            codes.append(process.returncode)
        return codes

    assert set(asyncio.run(race())) <= {-signal.SIGTERM, -signal.SIGKILL}
    assert not caplog.records


def test_work_that_ends_just_after_a_wait_for_it_has_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    wait, ended = concurrent.futures.Future.result, threading.Event()

    def wait_too_short(future: "concurrent.futures.Future[str]", timeout: float | None = None) -> Any:
        try:
            return wait(future, timeout)
        except TimeoutError:
            assert ended.wait(5)
            raise

    async def work() -> str:
        await asyncio.sleep(CHECK_THREAD_S + 0.1)
        asyncio.get_running_loop().call_later(0.05, ended.set)
        return "leased"

    monkeypatch.setattr(concurrent.futures.Future, "result", wait_too_short)
    thread = LoopThread("test")
    try:
        assert thread.call(work()) == "leased"
    finally:
        thread.stop()
