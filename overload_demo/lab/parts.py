"""The API and the worker as parts of a stack, in threads of this process or as child processes.

A job in the worker thread that never releases Python's lock stops the whole kernel, and only a restart of the kernel
ends it. As a child process the worker has a watchdog.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from overload_demo.api.app import create_app
from overload_demo.api.front_door.gate import Server
from overload_demo.config import Settings
from overload_demo.process import STOP_WITHIN_S, Child
from overload_demo.store.connect import Store
from overload_demo.worker import Worker

Value = TypeVar("Value")


class _PartThread:
    """A thread that runs until its ``_stop_running`` is called."""

    _thread: threading.Thread | None = None
    _stop_running: Callable[[], object] | None = None

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store

    def _run(self, name: str, run: Callable[..., object], *arguments: object, stop: Callable[[], object]) -> None:
        self._stop_running = stop
        self._thread = threading.Thread(target=run, args=arguments, name=name, daemon=True)
        self._thread.start()

    def request_stop(self) -> None:
        """Begin a clean stop and return at once."""
        if self._stop_running:
            self._stop_running()

    def stop(self) -> None:
        """Stop cleanly, within :data:`STOP_WITHIN_S`."""
        self.request_stop()
        if self._thread:
            self._thread.join(STOP_WITHIN_S)
            self._thread = None

    @property
    def pid(self) -> int | None:
        """This process, while the thread runs."""
        return os.getpid() if self._thread and self._thread.is_alive() else None


class ApiThread(_PartThread):
    """The API in a thread of this process, with an event loop of its own."""

    def __init__(self, settings: Settings, store: Store, listeners: list[socket.socket]) -> None:
        super().__init__(settings, store)
        self._listeners = listeners

    def start(self) -> None:
        """Serve on duplicates of the listeners, because uvicorn closes its sockets."""
        server = Server(create_app(self._settings, self._store), self._settings)
        sockets = [listener.dup() for listener in self._listeners]
        self._run("api", server.run, sockets, stop=server.stop)


class WorkerThread(_PartThread):
    """A worker in a thread of this process."""

    _worker: Worker | None = None

    def start(self) -> None:
        """Process jobs until :meth:`stop`."""
        self._worker = Worker(self._settings, self._store)
        self._run("worker", self._worker.run, stop=self._worker.stop)

    @property
    def pid(self) -> int | None:
        """This process, while the thread runs and no job of it has exceeded its time limit."""
        return None if self._worker and self._worker.overdue_job else super().pid


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
