"""Parts of a stack start once and never after a stop; a step in progress survives every cancellation."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from overload_demo.lab.parts import PartGroup, in_thread
from overload_demo.process import Child


class SlowPart:
    """Counts its starts, each of which takes until ``may_start``."""

    def __init__(self) -> None:
        self.begun, self.may_start = threading.Event(), threading.Event()
        self.starts = 0
        self.pid: int | None = None

    def start(self) -> None:
        self.begun.set()
        assert self.may_start.wait(20)
        self.starts += 1
        self.pid = 1

    def request_stop(self) -> None: ...

    def stop(self) -> None:
        self.pid = None


def test_two_starts_at_the_same_time_start_a_part_once() -> None:
    part = SlowPart()
    group = PartGroup(part=part)  # type: ignore[arg-type]

    with ThreadPoolExecutor() as pool:
        starts = [pool.submit(group.start, "part") for _ in range(4)]
        part.may_start.set()

    assert [start.result() for start in starts] == [None] * 4
    assert part.starts == 1


def test_a_stop_waits_for_a_start_and_no_start_follows_it() -> None:
    part, late = SlowPart(), SlowPart()
    group = PartGroup(part=part, late=late)  # type: ignore[arg-type]

    with ThreadPoolExecutor() as pool:
        starting = pool.submit(group.start)
        assert part.begun.wait(20)
        stopping = pool.submit(group.stop)
        assert not stopping.done()
        for one in (part, late):
            one.may_start.set()
    group.start()

    assert (starting.exception(), stopping.exception()) == (None, None)
    assert (part.starts, part.pid, late.pid) == (1, None, None)


def test_a_running_child_is_not_replaced() -> None:
    child = Child("overload_demo.worker", [])  # it waits for its imports: long enough
    child.start()
    try:
        pid = child.pid
        child.start()
        assert child.pid == pid
    finally:
        child.stop(0.0)


@pytest.mark.anyio
async def test_a_step_ends_before_the_last_of_many_cancellations_takes_effect() -> None:
    may_end, ended = threading.Event(), threading.Event()

    def step() -> None:
        assert may_end.wait(20)
        ended.set()

    running = asyncio.create_task(in_thread(step))
    for _ in range(3):
        await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=0.05)
        assert not done
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()
