"""Fixtures every room shares: one embedded store a session, a key prefix of its own a test, nothing left behind."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from overload_demo.config import Settings, load_settings
from overload_demo.store.embedded import EmbeddedStore
from overload_demo.store.opening import Store
from tests.support.running import make_settings
from tests.support.waiting import wait_until


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A real Redis behind its gateway, shared by all tests of this process that do not kill it."""
    folder = tmp_path_factory.mktemp("store")
    with EmbeddedStore(folder, load_settings(overload_data_dir=folder)) as embedded:
        yield embedded.acquire(), embedded.refresh


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of one test: keys nobody else uses, quick polls, no simulated work."""
    return make_settings(tmp_path)


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    """A test ends every process it has started (a store that has lost its last user may take a moment to leave)."""
    before = {process.pid for process in psutil.Process().children()}
    yield
    gc.collect()
    wait_until("no child process is left", lambda: _children() <= before, timeout_s=20.0)


def _children() -> set[int]:
    # the session's store is a child of whichever test came first; it lives in a directory of its own
    return {process.pid for process in psutil.Process().children() if not _is_session_store(process)}


def _is_session_store(process: psutil.Process) -> bool:
    try:
        return "store0" in " ".join(process.cmdline()) or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Async tests run on asyncio."""
    return "asyncio", {}
