"""An interrupt during a start or a stop leaves nothing half-started."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio.to_thread
import httpx
import psutil
import pytest

from overload_demo.lab import stack as lab_stack
from overload_demo.lab.stack import Placement, Stack
from tests.support.waiting import wait_until

MOMENTS: dict[str, Callable[[Path], bool]] = {
    "at once": lambda _: True,
    "while the new store starts": lambda folder: folder.joinpath("store-2", "gateway.lock").exists(),
}


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the API, worker and store processes of stacks below ``folder``; Redis by its working directory."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            named = process.environ().get("OVERLOAD_DATA_DIR", "")
            lives = any(Path(one).is_relative_to(folder) for one in (named, process.cwd()))
            if lives and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


async def until_nothing_is_left(folder: Path) -> None:
    """Wait for the processes to end: a store releases its directory just before it exits."""
    await anyio.to_thread.run_sync(wait_until, "no process is left", lambda: not processes_of(folder))


@pytest.mark.anyio
async def test_a_start_interrupted_while_the_store_starts_releases_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, may_go_on, released = threading.Event(), threading.Event(), threading.Event()

    @contextmanager
    def slow_store(_: object) -> Iterator[tuple[None, None]]:
        starts.set()
        may_go_on.wait(20)
        try:
            yield None, None
        finally:
            released.set()

    monkeypatch.setattr(lab_stack, "open_store", slow_store)
    starting = asyncio.create_task(Stack.start(runs=tmp_path))
    assert await asyncio.to_thread(starts.wait, 20)

    starting.cancel()
    done, _ = await asyncio.wait([starting], timeout=0.3)
    assert not done, "it waits for a store that is about to start"
    may_go_on.set()

    with pytest.raises(asyncio.CancelledError):
        await starting
    assert released.is_set()
    assert Stack.current is None


@pytest.mark.exhaustive
@pytest.mark.anyio
@pytest.mark.parametrize("placement", ["kernel", "process"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_an_interrupted_fresh_start_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, moment: str, placement: Placement
) -> None:
    stack = await Stack.start(placement=placement, runs=tmp_path)
    assert processes_of(tmp_path)

    again = asyncio.create_task(stack.fresh())
    await asyncio.sleep(0)
    await anyio.to_thread.run_sync(wait_until, moment, lambda: MOMENTS[moment](stack.folder), 20.0)
    assert not again.done()
    while not again.done():  # repeated interrupts
        again.cancel()
        await asyncio.sleep(0.05)
    assert again.cancelled()

    assert (Stack.current, stack.is_running) == (None, False)
    await until_nothing_is_left(tmp_path)
    assert list(stack.folder.glob("store-*")) == [], "no data is left either"
    async with stack:
        await stack.fresh()
        assert httpx.get(f"{stack.url}/health/ready", trust_env=False).status_code == 200


@pytest.mark.anyio
async def test_an_interrupted_stop_completes(tmp_path: Path) -> None:
    stack = await Stack.start(placement="process", runs=tmp_path)

    stopping = asyncio.create_task(stack.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping

    await until_nothing_is_left(tmp_path)
    assert not stack.data_dir.exists()


@pytest.mark.anyio
async def test_a_new_stack_replaces_the_running_one(tmp_path: Path) -> None:
    first = await Stack.start(runs=tmp_path, name="first")
    async with await Stack.start(runs=tmp_path, name="second", processing_delay_s=0.002) as second:
        assert Stack.current is second
        assert not first.is_running
        assert not first.data_dir.exists()
        assert httpx.get(f"{second.url}/health/ready", trust_env=False).status_code == 200
    await until_nothing_is_left(tmp_path)
