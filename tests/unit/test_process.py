"""The end of an event loop's child processes."""

import asyncio
import os
import signal
import sys

import pytest

from overload_demo.process import kill_and_wait

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
