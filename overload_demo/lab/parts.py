"""The API and the worker as parts of a stack: in threads of this process, or as child processes.

A child ignores SIGINT (a notebook's Interrupt goes to the whole process group) and ends when its stdin does, so it
survives an interrupt and nothing else. A thread part takes no signals at all.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from overload_demo.api.app import create_app
from overload_demo.api.front_door import Server
from overload_demo.config import Settings
from overload_demo.store.opening import Store
from overload_demo.worker import Worker

STOP_WITHIN_S = 20.0


class Part(Protocol):
    """Something that runs until stopped. All calls block; ``stop`` may be repeated."""

    def start(self) -> None:
        """Start, or start again."""

    def stop(self) -> None:
        """End cleanly, within :data:`STOP_WITHIN_S`."""

    @property
    def pid(self) -> int | None:
        """The process it runs in; None when it is not running."""


class Child:
    """``python -m MODULE --parent-pipe ...`` as a child process, its output in a log file."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        fds: Sequence[int] = (),
    ) -> None:
        self._command = [sys.executable, "-m", module, "--parent-pipe", *arguments]
        self._environment, self.log, self._fds = dict(environment), log, tuple(fds)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child, or start it again after it has died."""
        self._close_stdin()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                pass_fds=self._fds,
            )

    def stop(self) -> None:
        """Close its stdin, which ends it cleanly; kill it if it has not ended in time."""
        self._close_stdin()
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """``kill -9``: no farewell."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; None when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None


class ApiThread:
    """The API in a thread of this process, with an event loop of its own."""

    def __init__(self, settings: Settings, store: Store, listeners: list[socket.socket]) -> None:
        self._settings, self._store, self._listeners = settings, store, listeners
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve on duplicates of the listeners: uvicorn closes what it is given."""
        self._server = Server(create_app(self._settings, self._store), self._settings)
        sockets = [listener.dup() for listener in self._listeners]
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="api", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer what is under way, then end."""
        if self._server and self._thread:
            self._server.stop()
            self._thread.join(STOP_WITHIN_S)
            self._thread = None

    @property
    def pid(self) -> int | None:
        """This process, while the thread lives."""
        return os.getpid() if self._thread and self._thread.is_alive() else None


class WorkerThread:
    """A worker in a thread of this process."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Work until :meth:`stop`."""
        self._worker = Worker(self._settings, *self._store)
        self._thread = threading.Thread(target=self._worker.run, name="worker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the running job, give the rest back, end."""
        if self._worker and self._thread:
            self._worker.stop()
            self._thread.join(STOP_WITHIN_S)
            self._thread = None

    @property
    def pid(self) -> int | None:
        """This process, while the thread lives and its worker is not lost in a job that overran its time limit."""
        alive = self._thread and self._thread.is_alive() and self._worker and not self._worker.overdue_job
        return os.getpid() if alive else None
