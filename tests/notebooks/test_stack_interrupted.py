"""An interrupt in the middle of a start leaves no half-started thing to the kernel."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overload_demo.lab.running import stack as lab_stack
from overload_demo.lab.running.stack import Stack


@pytest.mark.anyio
async def test_a_start_interrupted_while_the_store_starts_gives_the_store_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, may_go_on, given_back = threading.Event(), threading.Event(), threading.Event()

    @contextmanager
    def slow_store(_: object) -> Iterator[tuple[None, None]]:
        starts.set()
        may_go_on.wait(20)
        try:
            yield None, None
        finally:
            given_back.set()

    monkeypatch.setattr(lab_stack, "open_store", slow_store)
    starting = asyncio.create_task(Stack.start(runs=tmp_path))
    assert await asyncio.to_thread(starts.wait, 20)

    starting.cancel()
    done, _ = await asyncio.wait([starting], timeout=0.3)
    assert not done, "it does not turn its back on a store that is about to start"
    may_go_on.set()

    with pytest.raises(asyncio.CancelledError):
        await starting
    assert given_back.is_set()
    assert Stack.current is None
