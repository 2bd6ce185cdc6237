"""The parts of a stack: API and worker, the folder of a run, and the removal of its data.

A job in the worker thread that never releases Python's lock stops the whole kernel, and only a restart of the kernel
ends it. As a child process the worker has a watchdog.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from overload_demo.api.app import create_app
from overload_demo.api.front_door.gate import Server
from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, OverloadDemoError, StoreError
from overload_demo.process import STOP_WITHIN_S, Child
from overload_demo.queue.maintenance import remove_all
from overload_demo.rest import Address
from overload_demo.store.connect import Store, opened
from overload_demo.store.data_dir import LEAVING_TIMEOUT_S, NODE, TEMPORARY, DataDir
from overload_demo.worker import Worker

log = logging.getLogger(__name__)

Value = TypeVar("Value")

SLOTS_AT = 8  # column of nodes.conf, see CLUSTER NODES
ABANDONED_AFTER_S = 60.0  # chosen: longer than a store takes from creating its directory to locking it


class _PartThread:
    """A thread of this process that serves until its stop."""

    _running: Server | Worker | None = None
    _thread: threading.Thread | None = None

    def __init__(self, settings: Settings, store: Store, listeners: Sequence[socket.socket] = ()) -> None:
        self._settings, self._store, self._listeners = settings, store, listeners

    def _serve(self, running: Server | Worker, *arguments: Any) -> None:
        self._running = running
        self._thread = threading.Thread(target=running.run, args=arguments, name=type(self).__name__, daemon=True)
        self._thread.start()

    def request_stop(self) -> None:
        """Begin a clean stop and return at once."""
        if self._running:
            self._running.stop()

    def stop(self) -> None:
        """Stop cleanly, within :data:`STOP_WITHIN_S`."""
        self.request_stop()
        if self._thread:
            self._thread.join(STOP_WITHIN_S)
            self._thread = None

    @property
    def pid(self) -> int | None:
        """This process, while the thread runs and no job of it has exceeded its time limit."""
        is_stuck = isinstance(self._running, Worker) and self._running.overdue_job
        return os.getpid() if self._thread and self._thread.is_alive() and not is_stuck else None


class ApiThread(_PartThread):
    """The API in a thread of this process, with an event loop of its own."""

    def start(self) -> None:
        """Serve on duplicates of the listeners, because uvicorn closes its sockets."""
        server = Server(create_app(self._settings, self._store), self._settings)
        self._serve(server, [listener.dup() for listener in self._listeners])


class WorkerThread(_PartThread):
    """A worker in a thread of this process."""

    def start(self) -> None:
        """Process jobs until :meth:`stop`."""
        self._serve(Worker(self._settings, self._store))


Part = ApiThread | WorkerThread | Child


class PartGroup(dict[str, Part]):
    """The parts of one generation of a stack, by name; safe to use from several threads.

    A part that runs is not started again, and no part is started after :meth:`stop`.
    """

    def __init__(self, **parts: Part) -> None:
        super().__init__(parts)
        self._lock = threading.Lock()
        self._is_stopped = False

    def start(self, *names: str) -> None:
        """Start the named parts, or all, unless they run. Blocks, but returns before they are ready."""
        with self._lock:
            for name in names or self:
                if not self._is_stopped and not self[name].pid:
                    self[name].start()

    def stop(self) -> None:
        """Stop all parts side by side. Blocks; may be repeated."""
        with self._lock:
            self._is_stopped = True
            for part in self.values():
                part.request_stop()
            for part in self.values():
                part.stop()


async def in_thread(function: Callable[..., Value], *arguments: object) -> Value:
    """Run a blocking step in a thread; a cancellation takes effect after the step has ended."""
    return await uncancelled(asyncio.ensure_future(asyncio.to_thread(function, *arguments)))


async def uncancelled(step: "asyncio.Future[Value]") -> Value:
    """Await ``step`` to its end, then raise a cancellation that arrived meanwhile, however often it was repeated."""
    cancellation: asyncio.CancelledError | None = None
    while not step.done():
        try:
            await asyncio.wait([step])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation
    return step.result()


class JsonConnection:
    """One kept HTTP connection for GET requests: under load a new one would wait in the accept queue.

    Blocks. ``timeout_s`` bounds each wait for the server. Proxy variables are ignored. Both methods raise OSError
    without a response, and ValueError for one that is not HTTP, has another status than 200, or is no JSON object.
    """

    def __init__(self, url: str, timeout_s: float, headers: dict[str, str] | None = None) -> None:
        verify = url.startswith("https")  # certificates take 17 ms to load
        self._client = httpx.Client(base_url=url, timeout=timeout_s, headers=headers, verify=verify, trust_env=False)
        self.close = self._client.close

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at ``path``."""
        found = json.loads(self.get_text(path))
        if not isinstance(found, dict):
            raise ValueError(f"the response to GET {path} is not an object")
        return found

    def get_text(self, path: str) -> str:
        """Return the text at ``path``."""
        try:
            response = self._client.get(path)
        except httpx.TransportError as error:
            kind = ValueError if isinstance(error, httpx.RemoteProtocolError) else OSError
            raise kind(str(error).rpartition("] ")[2]) from None  # without the number of the error
        if response.status_code != 200:
            raise ValueError(f"the response to GET {path} has status {response.status_code}")
        return response.text


def new_run_folder(runs: Path, name: str) -> Path:
    """Make a folder in ``runs`` named after date and time. Raises :class:`ConfigurationError` if that fails."""
    stem = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{name}"
    folder, number = runs / stem, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:  # a second run in this second
            number += 1
            folder = runs / f"{stem}-{number}"
        except OSError as error:
            raise ConfigurationError(
                f"cannot make a run folder in {runs.absolute()}: {error.strerror}; "
                "name a writable one (--output, or runs= of Stack.start), or use a copy of the course"
            ) from None


def remove_keys(address: Address, prefix: str) -> None:
    """Remove every key below the stack's own prefix at Upstash. Blocks; logs a failure."""

    async def remove() -> None:
        async with opened((address, None)) as clients:
            for one in clients:
                await remove_all(one, one.address.tag + prefix)

    try:
        asyncio.run(remove())
    except StoreError as error:
        log.warning("keys with the prefix %s were not removed from the database: %s", prefix, error)


def remove_data(data_dir: Path) -> None:
    """Remove a stack's data directory once its store has ended, unless the store has done so. Blocks."""
    with contextlib.suppress(ConfigurationError):  # raised when the directory is gone
        # Until then the store's log and locks would come back.
        if DataDir(data_dir).lock("gateway").is_free(timeout_s=LEAVING_TIMEOUT_S):
            shutil.rmtree(data_dir, ignore_errors=True)


def remove_abandoned(runs: Path) -> None:
    """Remove the data, and with it the tokens, of stacks in ``runs`` whose processes were all killed."""
    for mark in runs.glob(f"*/store-*/{TEMPORARY}"):
        data_dir = DataDir(mark.parent)
        locks = data_dir.lock("users"), data_dir.lock("gateway"), data_dir.lock("redis")
        with contextlib.suppress(OSError, ConfigurationError):
            is_old = time.time() - mark.stat().st_mtime > ABANDONED_AFTER_S
            if is_old and all(lock.is_free() for lock in locks):
                shutil.rmtree(mark.parent, ignore_errors=True)


def store_processes(data_dir: Path) -> dict[str, int]:
    """Return the ids of the running processes of a store: gateway, and redis or the nodes of a cluster."""
    ids: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, psutil.Error):
        ids["gateway"] = int(json.loads((data_dir / "state.json").read_text())["pid"])
        for server in psutil.Process(ids["gateway"]).children():
            folder = Path(server.cwd()).name
            ids[folder if folder.startswith(NODE) else "redis"] = server.pid
    return ids


def primary_in(data_dir: Path) -> str:
    """Return the name of a running node that is a primary with slots. Raises :class:`OverloadDemoError`."""
    for name in sorted(store_processes(data_dir)):
        with contextlib.suppress(OSError):
            rows = [line.split() for line in (data_dir / name / "nodes.conf").read_text().splitlines()]
            if any("myself,master" in row and len(row) > SLOTS_AT for row in rows):
                return name
    raise OverloadDemoError("no primary is running: start the stack with nodes=6")


def lives_in(data_dir: Path, pid: int) -> bool:
    """Whether ``pid`` is a live process of the store there; the stored id may be out of date."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(data_dir.resolve())
    return False
