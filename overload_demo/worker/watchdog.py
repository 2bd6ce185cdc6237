"""The watchdog of the worker's command: a process that ends the worker if a job blocks the interpreter.

A call that holds the interpreter's lock (a regular expression that backtracks, one huge sum) stops all threads of its
process and Python's signal handlers. The watchdog is a forked process. Shared memory holds which job runs since when; a
pipe carries the stop signals and closes with the worker.
"""

import logging
import mmap
import os
import select
import signal
import struct
import time
from typing import Any, NoReturn

from overload_demo.config import Settings
from overload_demo.process import PARENT_ONLY, STOP_SIGNALS

log = logging.getLogger("overload_demo.worker")

LONGEST_WAIT_S = 3600.0
MARGIN_S = 2.0  # a worker that is merely busy ends itself before that
_RUNNING = struct.Struct("d64s")  # start of the running job, CLOCK_MONOTONIC, 0 without one; its id


class Watchdog:
    """Ends this process by SIGKILL when a job exceeds a limit by 2 s, which only a blocked interpreter allows.

    The limits are WORKER_JOB_TIMEOUT_S and, from a stop signal on, WORKER_GRACE_S. Create it in the main thread, before
    any other thread starts; the second process ends with this one.
    """

    def __init__(self, settings: Settings) -> None:
        self._limit_s, self._grace_s = settings.worker_job_timeout_s, settings.worker_grace_s
        self._memory = mmap.mmap(-1, _RUNNING.size)
        self._handlers: dict[signal.Signals, Any] = {}
        self._worker = os.getpid()
        reader, self._writer = os.pipe()
        if (middle := os.fork()) == 0:
            # Forked twice: a handler that waits for all children of this process must not wait for the watchdog.
            if os.fork() == 0:
                self._watch(reader)
            os._exit(0)
        os.waitpid(middle, 0)
        os.close(reader)
        os.set_blocking(self._writer, False)
        PARENT_ONLY.add(self._writer)

    def guard_signals(self) -> None:
        """Send the number of each signal to the pipe, and restore signal handlers that a job changes."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def job_begins(self, job_id: str) -> None:
        """Start the time limit of a job, and end that of the one before."""
        _RUNNING.pack_into(self._memory, 0, time.monotonic(), job_id.encode())

    def batch_ended(self, *, is_stopping: bool) -> None:
        """End the time limit, and restore the stop signals' handlers unless a stop has begun."""
        _RUNNING.pack_into(self._memory, 0, 0.0, b"")
        changed = [number for number, wanted in self._handlers.items() if signal.getsignal(number) is not wanted]
        if is_stopping or not changed:
            return
        for number in changed:
            signal.signal(number, self._handlers[number])
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        names = " and ".join(number.name for number in changed)
        log.warning("the handler has replaced the signal handler of %s: restored", names)

    # ---- in the second process

    def _watch(self, reader: int) -> NoReturn:
        try:
            os.close(self._writer)
            for number in STOP_SIGNALS:  # meant for the worker
                signal.signal(number, signal.SIG_IGN)
            self._wait(reader)
        finally:
            os._exit(0)

    def _wait(self, reader: int) -> None:
        """Return when the worker has ended or was killed."""
        stop_at, stopped_job = 0.0, 0.0
        while True:
            now = time.monotonic()
            since, job_id = _RUNNING.unpack_from(self._memory)
            end_at, limit = (since or now) + self._limit_s, "WORKER_JOB_TIMEOUT_S"
            if since and since == stopped_job and stop_at < end_at:
                end_at, limit = stop_at, "WORKER_GRACE_S"
            if since and now > end_at + MARGIN_S:
                name = job_id.rstrip(b"\0").decode()
                message = "%s exceeds %s and blocks the interpreter: the worker is killed and the job interrupted"
                log.error(message, name, limit, extra={"job_id": name})
                os.kill(self._worker, signal.SIGKILL)
                return
            if select.select([reader], [], [], min(end_at + MARGIN_S - now + 0.01, LONGEST_WAIT_S))[0]:
                signals = os.read(reader, 64)
                if not signals:
                    return
                now, stopped_job = time.monotonic(), _RUNNING.unpack_from(self._memory)[0]
                for _ in STOP_SIGNALS & set(signals):
                    # a second signal ends the worker at once, as it does where the interpreter can handle it
                    stop_at = now - MARGIN_S if stop_at else now + self._grace_s
