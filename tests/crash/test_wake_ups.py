"""A sleeping worker starts a job whatever was killed or cut. It would poll an hour later, after the end of any test."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from overload_demo.config import Settings
from overload_demo.lab.parts import WorkerThread
from overload_demo.rest.loopback import connect
from overload_demo.store.connect import EmbeddedStore, Store
from overload_demo.store.data_dir import SERVER_SOCKET
from tests.crash.test_store_external_server import own_server
from tests.support.cases import plain_first
from tests.support.queues import Queue, open_queue
from tests.support.running import make_settings, serving_api, store_processes, submit, wait_for, working
from tests.support.stores import kill
from tests.support.waiting import wait_until, wait_until_async
from tests.support.workers import handler_lab

NEVER = {"worker_poll_interval": 3600.0, "worker_max_poll_interval": 3600.0, "worker_lease_s": 3600.0}


class Stack(NamedTuple):
    client: httpx.Client
    worker: WorkerThread
    settings: Settings

    def run_at_server(self, command: str) -> str:
        """Run a command at the server, not through the gateway."""
        own = self.settings.overload_redis_url
        embedded = str(self.settings.overload_data_dir / SERVER_SOCKET)
        with connect(own.get_secret_value().removeprefix("unix://") if own else embedded) as link:
            link.sendall(f"{command}\r\n".encode())
            return link.recv(65_536).decode()

    def sleeps(self) -> bool:
        return self.run_at_server(f"HEXISTS {self.settings.overload_key_prefix}jobs:stats asleep") == ":1\r\n"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for a socket, whose path has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextmanager
def stack(folder: Path, **changes: object) -> Iterator[Stack]:
    """An API and a worker on a store of their own."""
    settings = make_settings(folder, **changes)
    with EmbeddedStore(settings.overload_data_dir, settings) as embedded:
        store = embedded.acquire(), embedded.refresh
        with serving_api(settings, store) as client, working(settings, store) as worker:
            yield Stack(client, worker, settings)


@contextmanager
def sleeping_stack(folder: Path, **changes: object) -> Iterator[Stack]:
    with stack(folder, **NEVER, **changes) as one:
        wait_until("the worker sleeps", one.sleeps)
        yield one


def test_jobs_posted_to_a_sleeping_worker_are_done(tmp_path: Path) -> None:
    with sleeping_stack(tmp_path) as one:
        for _ in range(20):
            wait_for(one.client, submit(one.client))


def test_a_job_posted_while_the_worker_falls_asleep_is_done(tmp_path: Path) -> None:
    """The worker falls asleep after each job; the next one is posted at about that time."""
    with sleeping_stack(tmp_path) as one:
        wait_for(one.client, submit(one.client, 300))


def test_a_job_posted_after_the_subscription_is_cut_is_done(tmp_path: Path) -> None:
    with sleeping_stack(tmp_path) as one:
        for _ in range(3):
            assert one.run_at_server("CLIENT KILL TYPE pubsub") == ":1\r\n"
            wait_for(one.client, submit(one.client))
            wait_until("the worker sleeps again", one.sleeps)
            wait_until("it is subscribed again", lambda: is_subscribed(one))


def is_subscribed(one: Stack) -> bool:
    channel = f"{one.settings.overload_key_prefix}jobs:wake"
    return one.run_at_server(f"PUBSUB NUMSUB {channel}").endswith(":1\r\n")


@pytest.mark.parametrize("part", plain_first(["gateway", "server"]))
def test_a_job_posted_after_a_kill_is_done(tmp_path: Path, part: str) -> None:
    with sleeping_stack(tmp_path) as one:
        gateway, server = store_processes(tmp_path)
        kill(gateway if part == "gateway" else server)

        wait_for(one.client, submit(one.client))


def test_a_wake_up_published_without_a_subscription_is_made_up_for(
    tmp_path: Path, short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with own_server(short_path / "own") as url, sleeping_stack(tmp_path, overload_redis_url=url) as one:
        one.run_at_server("ACL SETUSER default -subscribe")
        one.run_at_server("CLIENT KILL TYPE pubsub")
        wait_until("the worker cannot subscribe", lambda: "no wake-ups" in caplog.text)
        job_ids = submit(one.client)
        wait_until("its wake-up is published", lambda: not one.sleeps())
        one.run_at_server("ACL SETUSER default +subscribe")

        wait_for(one.client, job_ids)


@pytest.mark.parametrize("command", plain_first(["publish", "subscribe"]))
def test_without_the_right_to_be_woken_a_worker_polls_and_logs_it_once(
    tmp_path: Path, short_path: Path, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    user = "--user", *f"default on nopass ~* &* +@all -{command}".split()
    with own_server(short_path / "own", *user) as url, stack(tmp_path, overload_redis_url=url) as one:
        for _ in range(3):
            wait_for(one.client, submit(one.client))
            wait_until("it is logged", lambda: "no wake-ups" in caplog.text)

    assert len([line for line in caplog.messages if "no wake-ups" in line]) == 1


def test_a_stop_wakes_the_worker(tmp_path: Path) -> None:
    with sleeping_stack(tmp_path) as one:
        one.worker.request_stop()

        wait_until("it has ended", lambda: one.worker.pid is None)


@pytest.mark.anyio
async def test_a_sleeping_worker_takes_the_job_of_a_dead_one_when_its_lease_ends(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, **NEVER)
    async with open_queue(settings, store) as queue:
        [job_id] = await queue.enqueue(1)
        await queue.worker("dead", worker_lease_s=1.0).lease(1)
        with working(settings, store):
            await wait_until_async("it is done", lambda: is_done(queue, job_id))

        assert await queue.field(job_id, "attempts") == "2"


async def is_done(queue: Queue, job_id: str) -> bool:
    return await queue.state(job_id) == "done"


def test_a_forked_child_does_not_take_the_wake_ups(tmp_path: Path, store_on_a_port: Store) -> None:
    code = "import os\ndef handle(payload):\n    return os.fork() and os.wait()"
    never = {name.upper(): value for name, value in NEVER.items()}
    with handler_lab(tmp_path, store_on_a_port) as lab, lab.worker(code, **never):
        for _ in range(5):
            wait_for(lab.client, submit(lab.client))
