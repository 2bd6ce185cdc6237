"""The parts of a stack, running for the length of a ``with`` block."""

import itertools
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overload_demo.config import Settings, load_settings
from overload_demo.http_server import listen, url_of
from overload_demo.lab.job_log import read_events
from overload_demo.lab.parts import ApiThread, WorkerThread
from overload_demo.process import Child
from overload_demo.store.connect import Store
from tests.support.waiting import wait_until

JOB = {"name": "my-demo-job", "value": 42, "message": "Hello, World!"}


def make_settings(folder: Path, **changes: Any) -> Settings:
    """Settings with a random key prefix, quick polls and no simulated work."""
    own: dict[str, Any] = {
        "overload_data_dir": folder / "data",
        "overload_key_prefix": f"{secrets.token_hex(4)}:",
        "worker_processing_delay": 0.0,
        "worker_poll_interval": 0.02,
        "worker_max_poll_interval": 0.05,
        "worker_effect_log": folder / "effects.log",
    }
    return load_settings(**(own | changes))


@contextmanager
def listening() -> Iterator[list[socket.socket]]:
    """The front door's sockets on a free port."""
    listeners = listen("127.0.0.1", 0)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


@contextmanager
def serving_api(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    """The API in a thread; yields a client of it."""
    with listening() as listeners:
        part = ApiThread(settings, store, listeners)
        part.start()
        try:
            with httpx.Client(base_url=url_of(listeners), timeout=30.0, trust_env=False) as client:
                yield client
        finally:
            part.stop()


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app in this event loop, without a socket; its exceptions become a 500."""
    transport = httpx.ASGITransport(_in_one_piece(app), raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


def _in_one_piece(app: FastAPI) -> ASGIApp:
    """Hand each body over in one message, as a server does with a small one; httpx's transport takes two."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_whole() -> Message:
            return whole.pop() if whole else await receive()

        await app(scope, receive_whole, send)

    return call


@contextmanager
def working(settings: Settings, store: Store) -> Iterator[WorkerThread]:
    """A worker in a thread."""
    part = WorkerThread(settings, store)
    part.start()
    try:
        yield part
    finally:
        part.stop()


def environment(folder: Path, **variables: object) -> dict[str, str]:
    """A child's environment: a separate data directory, nothing of the developer's."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("UPSTASH", "OVERLOAD", "WORKER", "QUEUE"))}
    own: dict[str, object] = {
        "OVERLOAD_DATA_DIR": folder / "data",
        "WORKER_PROCESSING_DELAY": 0,
        "WORKER_POLL_INTERVAL": 0.02,
        "WORKER_MAX_POLL_INTERVAL": 0.05,
        "WORKER_EFFECT_LOG": folder / "effects.log",
        "PYTHONPATH": folder,
    }
    return clean | {name: str(value) for name, value in (own | variables).items()}


def queue_variables(store: Store, prefix: str, **more: object) -> dict[str, object]:
    """Variables that connect child processes in any data directory to one queue in a store with a URL."""
    address = store[0]
    access = {"UPSTASH_REDIS_REST_URL": address.url, "UPSTASH_REDIS_REST_TOKEN": address.token.get_secret_value()}
    return {**access, "OVERLOAD_KEY_PREFIX": prefix, **more}


def child(module: str, *arguments: str, folder: Path, fds: list[int] | None = None, **variables: object) -> Child:
    """A part as a child process, not started yet; its log is ``folder/<last part of module>.log``."""
    log = folder / f"{module.rpartition('.')[2]}.log"
    return Child(module, arguments, environment=environment(folder, **variables), log=log, fds=fds or [])


@contextmanager
def api_process(folder: Path, **variables: object) -> Iterator[tuple[Child, httpx.Client]]:
    """The API as a child process on inherited sockets, so that a killed one can be restarted at the same URL."""
    with listening() as listeners:
        fds = [listener.fileno() for listener in listeners]
        part = child("overload_demo.api", "--fds", ",".join(map(str, fds)), folder=folder, fds=fds, **variables)
        part.start()
        try:
            with httpx.Client(base_url=url_of(listeners), timeout=30.0, trust_env=False) as client:
                yield part, client
        finally:
            part.stop()


@contextmanager
def worker_process(folder: Path, **variables: object) -> Iterator[Child]:
    """A worker as a child process."""
    part = child("overload_demo.worker", folder=folder, **variables)
    part.start()
    try:
        yield part
    finally:
        part.stop()


def submit(client: httpx.Client, count: int = 1, **fields: object) -> list[str]:
    """Submit jobs one after the other, values 0, 1, ...; returns their ids. Each must be accepted."""
    ids = []
    for number in range(count):
        answer = client.post("/jobs", json=JOB | {"value": number} | fields)
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["job_id"])
    return ids


def status(client: httpx.Client, job_id: str) -> str:
    """The status of a job, "" while the API does not answer."""
    answer = client.get(f"/jobs/{job_id}")
    return str(answer.json()["status"]) if answer.status_code == 200 else ""


def wait_for(client: httpx.Client, job_ids: list[str], state: str = "done", timeout_s: float = 25.0) -> None:
    """Wait until all jobs are in ``state``."""
    wait_until(f"all are {state}", lambda: all(status(client, one) == state for one in job_ids), timeout_s)


def events(folder: Path) -> list[tuple[str, str, int]]:
    """The worker's log as (what, job id, attempt), what being "start" or "effect"."""
    return [(event.what, event.job_id, event.attempt) for event in read_events(folder / "effects.log")]


def files_below(folder: Path) -> dict[Path, bytes]:
    """Each file below ``folder`` with its content, without those that a process removes meanwhile."""
    contents = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):
                contents[path] = path.read_bytes()
    return contents


def send_signal(part: Child, number: int) -> None:
    """Send a signal to a part that must still run."""
    assert part.pid is not None, "it has ended"
    os.kill(part.pid, number)


def store_processes(folder: Path) -> tuple[int, int]:
    """The process ids of the gateway and of its Redis for the data directory of ``folder``."""
    gateway = int(json.loads((folder / "data" / "state.json").read_text())["pid"])
    [redis] = psutil.Process(gateway).children()
    return gateway, redis.pid


# Below the ports that the kernel hands out, a thousand for each process of a run: no other test takes one meanwhile.
_PORTS = itertools.count(
    10_000 + os.getppid() % 5 * 4_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
)


def free_port() -> int:
    """A port that was free a moment ago."""
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError
