"""The parent of several API processes: it owns the listening sockets, and does nothing else.

The sockets, and the crowd that waits in their queues, outlive every process that serves them: one that dies is started
again, and all are replaced one after the other on :meth:`Parent.replace`, without anybody being refused or reset.
"""

import logging
import os
import select
import socket
import time
from collections.abc import Sequence

from overload_demo.errors import OverloadDemoError
from overload_demo.http_server import url_of
from overload_demo.metric_set import mark_dead, shared_memory
from overload_demo.process import Child

log = logging.getLogger("overload_demo.api")

READY_WITHIN_S = 30.0
LOOK_EVERY_S = 0.1
STEADY_AFTER_S = 10.0  # a process that lived that long died of something new
BACKOFF_FIRST_S, BACKOFF_LONGEST_S = 0.1, 5.0
MARGIN_S = 5.0


class Parent:
    """Serves on ``listeners`` with so many child processes, from :meth:`run` until :meth:`stop`.

    ``grace_s`` is how long a child may take at a stop for each of its two steps, seconds. :meth:`stop` and
    :meth:`replace` only set a flag: they may be called from a signal handler.
    """

    def __init__(self, listeners: list[socket.socket], processes: int, grace_s: float) -> None:
        self._listeners, self._patience_s = listeners, 2 * grace_s + MARGIN_S
        self._numbers = shared_memory(processes + 1)
        self._seats = [self._seat(row) for row in range(processes)]
        self._free_row = processes  # for the successor of one that still lives
        self._is_stopping = self._is_to_replace = False

    def stop(self) -> None:
        """Let in who waits, answer who is inside, end."""
        self._is_stopping = True

    def replace(self) -> None:
        """Put a new process in the place of each, one after the other; an old one goes when its successor serves."""
        self._is_to_replace = True

    def run(self) -> None:
        """Serve. Raises :class:`OverloadDemoError` when none of the first processes gets ready.

        One that does not get ready while others do is replaced like one that has died.
        """
        try:
            for seat in self._seats:
                seat.fill()
            ready = self._get_ready(self._seats)
            if not ready and not self._is_stopping:
                raise OverloadDemoError("the API could not start; the lines above say why")
            if ready:
                log.info("%d processes serve at %s", ready, url_of(self._listeners))
            while not self._is_stopping:
                time.sleep(LOOK_EVERY_S)
                self._look()
        finally:
            self._empty(self._seats)
            self._numbers.close()

    def _empty(self, seats: Sequence["_Seat"]) -> None:
        """Stop processes at the same time, within one shared grace; together they drain the accept queues."""
        for seat in seats:
            seat.child.request_stop()
        give_up_at = time.monotonic() + self._patience_s
        for seat in seats:
            seat.empty(max(0.0, give_up_at - time.monotonic()))

    def _seat(self, row: int) -> "_Seat":
        return _Seat(self._listeners, self._numbers.fileno(), row)

    def _look(self) -> None:
        for seat in self._seats:
            seat.refill_if_dead()
        if self._is_to_replace:
            self._is_to_replace = False
            self._replace_all()

    def _replace_all(self) -> None:
        for number, old in enumerate(self._seats):
            new = self._seat(self._free_row)
            new.fill()
            if not self._get_ready([new]):
                new.empty(0.0)  # it holds no connection
                log.error("the new process does not serve: the old ones stay")
                return
            self._seats[number] = new
            log.info("process %s takes the place of %s", new.child.pid, old.child.pid)
            old.child.terminate()
            give_up_at = time.monotonic() + self._patience_s
            while old.child.pid and not self._is_stopping and time.monotonic() < give_up_at:
                time.sleep(LOOK_EVERY_S / 5)
            if self._is_stopping:
                self._seats.append(old)  # it is stopped with all others
                return
            old.empty(0.0)
            self._free_row = old.row

    def _get_ready(self, seats: Sequence["_Seat"]) -> int:
        """Wait until each process serves, has died or has used up its time; returns how many serve."""
        while not self._is_stopping and any(seat.is_starting() for seat in seats):
            time.sleep(LOOK_EVERY_S / 5)
        return sum(seat.is_ready() for seat in seats)


class _Seat:
    """One process, or its successor after a death; it waits ever longer for one that dies again and again.

    What its processes count is in one ``row`` of the memory that they inherit.
    """

    def __init__(self, listeners: list[socket.socket], numbers: int, row: int) -> None:
        self._sockets = [listener.fileno() for listener in listeners]
        self._numbers, self.row = numbers, row
        self._pause_s = 0.0
        self._filled_at = 0.0
        self._fill_at: float | None = None
        self._ready = -1
        self.child: Child

    def fill(self) -> None:
        """Start a process."""
        self._close_pipe()
        self._ready, theirs = os.pipe()
        arguments = ["--fds", ",".join(map(str, self._sockets)), "--ready-fd", str(theirs)]
        arguments += ["--metrics-fd", str(self._numbers), "--metrics-row", str(self.row)]
        self.child = Child("overload_demo.api", arguments, fds=[*self._sockets, theirs, self._numbers])
        try:
            self.child.start()
        finally:
            os.close(theirs)
        self._filled_at, self._fill_at = time.monotonic(), None

    def empty(self, within_s: float) -> None:
        """End the process, killing it after ``within_s`` seconds."""
        self.child.stop(within_s)
        mark_dead(self._numbers, self.row)
        self._close_pipe()

    def is_ready(self) -> bool:
        """Whether the process serves; stays true."""
        return self.child.pid is not None and bool(select.select([self._ready], [], [], 0)[0])

    def is_starting(self) -> bool:
        """Whether the process may still get ready."""
        in_time = time.monotonic() < self._filled_at + READY_WITHIN_S
        return in_time and self.child.pid is not None and not self.is_ready()

    def refill_if_dead(self) -> None:
        """Start another process, at once after a long life; kill one that hangs at its start."""
        if self.child.pid:
            if self.is_ready() or self.is_starting():
                return
            log.error("process %s does not serve after %g s and is killed", self.child.pid, READY_WITHIN_S)
        now = time.monotonic()
        if self._fill_at is None:
            self.empty(0.0)
            steady = now - self._filled_at > STEADY_AFTER_S
            self._pause_s = 0.0 if steady else min(2 * self._pause_s or BACKOFF_FIRST_S, BACKOFF_LONGEST_S)
            self._fill_at = now + self._pause_s
            log.warning("a process of the API has ended; another starts in %g s", self._pause_s)
        if now >= self._fill_at:
            self.fill()

    def _close_pipe(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
        self._ready = -1
