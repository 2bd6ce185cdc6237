"""The parent of several API processes: it owns the listening sockets and restarts the children.

The sockets, and the connections that wait in their queues, survive every child.
"""

import logging
import os
import select
import socket
import time
from collections.abc import Sequence
from functools import partial

from overload_demo.errors import OverloadDemoError
from overload_demo.http_server import url_of
from overload_demo.metric_set import mark_dead, shared_memory
from overload_demo.process import Child

log = logging.getLogger("overload_demo.api")

READY_WITHIN_S = 30.0
CHECK_EVERY_S = 0.1
STEADY_AFTER_S = 10.0  # the death of a child that lived so long has a new cause
BACKOFF_FIRST_S, BACKOFF_LONGEST_S = 0.1, 5.0
MARGIN_S = 5.0


class Parent:
    """Serves on ``listeners`` with child processes, from :meth:`run` until :meth:`stop`.

    A child may take ``grace_s`` seconds for each of the two steps of a stop. A signal handler may call :meth:`stop` and
    :meth:`replace`.
    """

    def __init__(self, listeners: list[socket.socket], processes: int, grace_s: float) -> None:
        self._listeners, self._stop_within_s = listeners, 2 * grace_s + MARGIN_S
        self._metrics = shared_memory(processes + 1)
        self._new_child = partial(_RestartedChild, listeners, self._metrics.fileno())
        self._children: list[_RestartedChild] = []
        self._processes = processes
        self._free_row = processes  # for the replacement of a child that still runs
        self._is_stopping = self._is_to_replace = False

    def stop(self) -> None:
        """Stop all children: they drain the accept queues and finish their requests."""
        self._is_stopping = True

    def replace(self) -> None:
        """Rolling restart: stop each child once its replacement is ready. No client is refused or reset."""
        self._is_to_replace = True

    def run(self) -> None:
        """Serve. Raises :class:`OverloadDemoError` if none of the first children becomes ready.

        One that does not become ready while others do is restarted like a dead one.
        """
        try:
            for row in range(self._processes):
                child = self._new_child(row)
                child.start()
                self._children.append(child)
            ready = self._wait_until_ready(self._children)
            if not ready and not self._is_stopping:
                raise OverloadDemoError("the API could not start; see the log lines above")
            if ready:
                log.info("%d processes serve at %s", ready, url_of(self._listeners))
            while not self._is_stopping:
                time.sleep(CHECK_EVERY_S)
                for child in self._children:
                    child.restart_if_dead()
                if self._is_to_replace:
                    self._is_to_replace = False
                    self._replace_all()
        finally:
            self._stop_all()
            self._metrics.close()

    def _stop_all(self) -> None:
        """Stop the children at the same time, within one shared grace; together they drain the accept queues."""
        for child in self._children:
            child.process.request_stop()
        give_up_at = time.monotonic() + self._stop_within_s
        for child in self._children:
            child.stop(max(0.0, give_up_at - time.monotonic()))

    def _replace_all(self) -> None:
        for number, old in enumerate(self._children):
            new = self._new_child(self._free_row)
            if not new.try_to_start():
                return
            if not self._wait_until_ready([new]):
                new.stop(0.0)  # it holds no connection
                log.error("the new process does not become ready: the old ones stay")
                return
            self._children[number] = new
            log.info("process %s replaces %s", new.process.pid, old.process.pid)
            old.process.terminate()
            give_up_at = time.monotonic() + self._stop_within_s
            while old.process.pid and not self._is_stopping and time.monotonic() < give_up_at:
                time.sleep(CHECK_EVERY_S / 5)
            if self._is_stopping:
                self._children.append(old)  # it is stopped with all others
                return
            old.stop(0.0)
            self._free_row = old.row

    def _wait_until_ready(self, children: Sequence["_RestartedChild"]) -> int:
        """Wait until each child serves, has died or has exceeded its time; returns how many serve."""
        while not self._is_stopping and any(child.is_starting() for child in children):
            time.sleep(CHECK_EVERY_S / 5)
        return sum(child.is_ready() for child in children)


class _RestartedChild:
    """Supervises one child, restarting it with exponential back-off; it counts in ``row`` of the shared memory."""

    def __init__(self, listeners: list[socket.socket], metrics_fd: int, row: int) -> None:
        self._sockets = [listener.fileno() for listener in listeners]
        self._metrics_fd, self.row = metrics_fd, row
        self._pause_s = self._started_at = 0.0
        self._restart_at: float | None = None
        self._ready = -1
        self.process: Child

    def start(self) -> None:
        """Start a process, with a pipe on which it reports that it is ready."""
        self._ready, ready_fd = os.pipe()
        arguments = ["--fds", ",".join(map(str, self._sockets)), "--ready-fd", str(ready_fd)]
        arguments += ["--metrics-fd", str(self._metrics_fd), "--metrics-row", str(self.row)]
        self.process = Child("overload_demo.api", arguments, fds=[*self._sockets, ready_fd, self._metrics_fd])
        try:
            self.process.start()
        except OSError:
            os.close(self._ready)
            self._ready = -1
            raise
        finally:
            os.close(ready_fd)
        self._started_at, self._restart_at = time.monotonic(), None

    def try_to_start(self) -> bool:
        """Start a process; log a failure, such as too many descriptors, and return False."""
        try:
            self.start()
        except OSError as error:
            log.error("cannot start an API process: %s", error)
            return False
        return True

    def stop(self, within_s: float) -> None:
        """Stop the process; kill it after ``within_s`` seconds."""
        self.process.stop(within_s)
        mark_dead(self._metrics_fd, self.row)
        if self._ready >= 0:
            os.close(self._ready)
        self._ready = -1

    def is_ready(self) -> bool:
        """Whether the process serves; stays true."""
        return self.process.pid is not None and bool(select.select([self._ready], [], [], 0)[0])

    def is_starting(self) -> bool:
        """Whether the process may still become ready."""
        in_time = time.monotonic() < self._started_at + READY_WITHIN_S
        return in_time and self.process.pid is not None and not self.is_ready()

    def restart_if_dead(self) -> None:
        """Restart a dead process, at once after a long life; kill one that hangs at its start."""
        if self.process.pid:
            if self.is_ready() or self.is_starting():
                return
            log.error("process %s is not ready after %g s and is killed", self.process.pid, READY_WITHIN_S)
        now = time.monotonic()
        if self._restart_at is None:
            self.stop(0.0)
            steady = now - self._started_at > STEADY_AFTER_S
            self._pause_s = 0.0 if steady else min(2 * self._pause_s or BACKOFF_FIRST_S, BACKOFF_LONGEST_S)
            self._restart_at = now + self._pause_s
            log.warning("an API process has ended, restarting in %g s", self._pause_s)
        if now >= self._restart_at and not self.try_to_start():
            self._restart_at = now + BACKOFF_LONGEST_S
