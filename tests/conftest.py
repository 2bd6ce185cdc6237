"""Shared fixtures: one embedded store a session, one key prefix a test, and no process left behind."""

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from overload_demo.config import Settings, load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.lab.simulated_cloud import COMMANDS_PER_S
from overload_demo.rest import Address
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import EmbeddedStore, Store, open_store
from overload_demo.store.redis_server import find_server
from tests.support.cloud import lagging_cloud, real_database, store_of
from tests.support.clusters import RunningCluster, running_cluster
from tests.support.commands import start_server
from tests.support.queues import InTurn, Queue, Repeating, open_queue
from tests.support.running import make_settings, queue_variables
from tests.support.shards import joined
from tests.support.stores import standalone_store
from tests.support.waiting import wait_until

# Every process compiles the package anew where this is set: tests start hundreds of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# jsonschema, below nbformat, loads this for a format no schema here has, and so builds 38 parsers: 2 s in each process.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def pytest_xdist_auto_num_workers() -> int:
    """Two more tests at a time than there are cores, since most of them wait for processes; more than 4 gain little."""
    return min((os.cpu_count() or 1) + 2, 4)


@pytest.fixture(scope="session", autouse=True)
def _command_server() -> None:
    """Start the server that forks commands before any test counts its children."""
    start_server()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A real Redis behind its gateway, shared by all tests of this process that do not kill it."""
    folder = tmp_path_factory.mktemp("store")
    with EmbeddedStore(folder, load_settings(overload_data_dir=folder)) as embedded:
        yield embedded.acquire(), embedded.refresh


@pytest.fixture(scope="session")
def store_on_a_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with a URL, for processes that are to use it as if it were Upstash."""
    with standalone_store(tmp_path_factory.mktemp("store-on-a-port")) as rest:
        yield Address(rest.url, SecretStr(rest.token)), None


@pytest.fixture
def own_queue(store_on_a_port: Store) -> dict[str, object]:
    """Variables that connect child processes to a queue of one test in the shared store: none starts a store."""
    return queue_variables(store_on_a_port, f"{secrets.token_hex(4)}:")


@pytest.fixture(scope="session")
def store_before_own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A gateway in front of a server that the user has started (``OVERLOAD_REDIS_URL``)."""
    try:
        binary = find_server(None)
    except ConfigurationError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("ownstore")
    with tempfile.TemporaryDirectory() as short:  # a socket's path has at most 107 bytes
        socket = Path(short) / "s"
        options = ["--port", "0", "--unixsocket", socket, "--dir", short, "--save", ""]
        server = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        try:
            wait_until("the server listens", socket.exists)
            settings = load_settings(overload_data_dir=folder, overload_redis_url=f"unix://{socket}")
            with EmbeddedStore(folder, settings) as embedded:
                yield embedded.acquire(), embedded.refresh
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Three primaries and three replicas on loopback, shared by all tests of this process that do not harm them."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as one:
        yield one


@pytest.fixture(scope="session")
def store_in_a_cluster(cluster: RunningCluster) -> Store:
    """One shard of the cluster: its keys begin with a hash tag."""
    return cluster.store[0].shards[1], None


@pytest.fixture(scope="session")
def three_gateways(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Three gateways of one shard of the cluster, for :class:`InTurn`."""
    with contextlib.ExitStack() as stack:
        addresses = []
        for number in range(3):
            folder = tmp_path_factory.mktemp(f"gateway-{number}")
            settings = load_settings(overload_data_dir=folder, overload_redis_url=cluster.url())
            addresses.append(stack.enter_context(open_store(settings))[0].shards[2])
        yield joined(addresses)


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[RunningCluster]:
    """A cluster of one test, which may kill its nodes."""
    with running_cluster(tmp_path / "own-cluster") as one:
        yield one


@pytest.fixture(scope="session")
def store_in_the_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A simulated remote database: a millisecond away, with a limit on commands and reads from a lagging replica."""
    with lagging_cloud(tmp_path_factory.mktemp("cloud")) as (cloud, _):
        cloud.round_trip_s, cloud.commands_per_s = 0.001, COMMANDS_PER_S
        yield store_of(cloud)


@pytest.fixture(scope="session")
def store_live() -> Store:
    """The real database that the environment names."""
    return real_database()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of one test: a random key prefix, quick polls, no simulated work."""
    return make_settings(tmp_path)


@pytest.fixture
def no_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one reply decide the outcome: the pause before a second attempt is beyond every deadline."""
    monkeypatch.setattr("overload_demo.rest.client.BACKOFF_FIRST_S", 1e12)


STORES = {
    "embedded": ("store", Upstash),
    "own server": ("store_before_own_server", Upstash),
    "replies lost": ("store", Repeating),
    "cloud": ("store_in_the_cloud", Upstash),
    "cluster": ("store_in_a_cluster", Upstash),
    "three gateways": ("three_gateways", InTurn),
    "live": ("store_live", Upstash),
}


MARKS = {
    "own server": [pytest.mark.exhaustive],
    "cloud": [pytest.mark.exhaustive],
    "cluster": [pytest.mark.exhaustive],
    "three gateways": [pytest.mark.exhaustive],
    "live": [pytest.mark.live],
}


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, [])) for name in STORES])
def queue_parts(request: pytest.FixtureRequest) -> tuple[Store, type[Upstash]]:
    """Each way a queue is tested: over each kind of store, and with every script run twice."""
    fixture, transport = STORES[request.param]
    return request.getfixturevalue(fixture), transport


@pytest.fixture
async def queue(queue_parts: tuple[Store, type[Upstash]], settings: Settings) -> AsyncIterator[Queue]:
    """An empty queue."""
    async with open_queue(settings, *queue_parts) as one:
        yield one


@pytest.fixture(autouse=True)
def _no_child_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that a test ends every process it started; a store without users may take a moment to end."""
    if "queue_parts" in request.fixturenames:
        request.getfixturevalue("queue_parts")  # processes shared by the session are not leftovers
    before = _children()
    yield
    try:
        wait_until("no child process is left", lambda: _children() <= before, timeout_s=20.0)
    except AssertionError as error:
        left = [" ".join(psutil.Process(pid).cmdline()) for pid in _children() - before]
        raise AssertionError(f"{error}: {left}") from None


def _children() -> set[int]:
    return {pid for pid in _child_ids() if _is_alive(pid)}


def _child_ids() -> list[int]:
    """The ids of all children; psutil reads every process of the machine, at each test: 12 s of CPU in all."""
    try:
        threads = list(Path("/proc/self/task").iterdir())
        return [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
    except OSError:  # not on Linux, or a thread has just ended
        return [process.pid for process in psutil.Process().children()]


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Async tests run on asyncio."""
    return "asyncio", {}
