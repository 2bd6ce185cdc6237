"""The API and the worker as parts of a stack, in threads of this process.

They take no signals at all. A job that keeps the interpreter's lock stops the whole kernel, and no limit ends it but a
restart of the kernel; as a child process the worker has a watchdog. As child processes they are a
:class:`~overload_demo.process.Child` each.
"""

import contextlib
import os
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import psutil

from overload_demo.api.app import create_app
from overload_demo.api.front_door.server import Server
from overload_demo.config import Settings
from overload_demo.process import STOP_WITHIN_S
from overload_demo.store.connect import Store
from overload_demo.worker import Worker


class Part(Protocol):
    """Something that runs until stopped. ``start`` and ``stop`` block; the stopping calls may be repeated."""

    def start(self) -> None:
        """Start, or start again."""

    def request_stop(self) -> None:
        """Make it end cleanly, and do not wait."""

    def stop(self) -> None:
        """End cleanly, within :data:`STOP_WITHIN_S`."""

    @property
    def pid(self) -> int | None:
        """The process it runs in; None when it is not running."""


def start_all(parts: Iterable[Part]) -> None:
    """Start them; returns before they are ready."""
    for part in parts:
        part.start()


def stop_all(parts: Iterable[Part]) -> None:
    """End them side by side."""
    for part in parts:
        part.request_stop()
    for part in parts:
        part.stop()


class _PartThread(ABC):
    """What both have in common: a thread that ends some time after ``request_stop``."""

    _thread: threading.Thread | None = None

    @abstractmethod
    def request_stop(self) -> None:
        """Make it end cleanly, and do not wait."""

    def stop(self) -> None:
        """The same, and wait."""
        self.request_stop()
        if self._thread:
            self._thread.join(STOP_WITHIN_S)
            self._thread = None

    @property
    def pid(self) -> int | None:
        """This process, while the thread lives."""
        return os.getpid() if self._thread and self._thread.is_alive() else None


class ApiThread(_PartThread):
    """The API in a thread of this process, with an event loop of its own."""

    def __init__(self, settings: Settings, store: Store, listeners: list[socket.socket]) -> None:
        self._settings, self._store, self._listeners = settings, store, listeners
        self._server: Server | None = None

    def start(self) -> None:
        """Serve on duplicates of the listeners: uvicorn closes what it is given."""
        self._server = Server(create_app(self._settings, self._store), self._settings)
        sockets = [listener.dup() for listener in self._listeners]
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="api", daemon=True)
        self._thread.start()

    def request_stop(self) -> None:
        """Answer what is under way, then end."""
        if self._server:
            self._server.stop()


class WorkerThread(_PartThread):
    """A worker in a thread of this process."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store
        self._worker: Worker | None = None

    def start(self) -> None:
        """Work until :meth:`stop`."""
        self._worker = Worker(self._settings, self._store)
        self._thread = threading.Thread(target=self._worker.run, name="worker", daemon=True)
        self._thread.start()

    def request_stop(self) -> None:
        """Finish the running job, give the rest back, end."""
        if self._worker:
            self._worker.stop()

    @property
    def pid(self) -> int | None:
        """This process, while the thread lives and its worker is not lost in a job that overran its time limit."""
        return None if self._worker and self._worker.overdue_job else super().pid


def lives_in(data_dir: Path, pid: int) -> bool:
    """Whether this is a live process of the store there: its state may name one that is long gone."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == data_dir.resolve()
    return False
