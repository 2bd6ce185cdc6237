"""Child processes, and how one knows that its parent is gone, however it died.

A child started from a notebook must ignore the kernel's Interrupt (SIGINT goes to the whole process group) and must not
outlive a killed kernel. Both hold for a child that ignores SIGINT and watches its stdin, a pipe of the parent: the
operating system closes it at any kind of death.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

STOP_WITHIN_S = 20.0
# -P: the working directory may hold a queue.py or json.py of the user's, which must not shadow the standard library
PYTHON_M = (sys.executable, "-P", "-m")
# Descriptors of locks and sockets that a child made by fork must not hold; their owners add and discard them.
PARENT_ONLY: set[int] = set()


def replace_with_null(descriptors: Iterable[int]) -> None:
    """Put ``/dev/null`` in the place of each descriptor, so that an object that knows its number can still close it."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def after_fork(action: Callable[[], object]) -> None:
    """Call ``action`` in each child that this process forks; one that runs another program at once is not concerned."""
    if hasattr(os, "register_at_fork"):  # Windows does not fork
        os.register_at_fork(after_in_child=action)


after_fork(lambda: replace_with_null(PARENT_ONLY))


def watch_parent(on_gone: Callable[[], object]) -> None:
    """Ignore SIGINT, and call ``on_gone`` once (in a thread of its own) when stdin reaches its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_end() -> None:
        # os.read on the descriptor: a read through sys.stdin would hold its lock and hang the interpreter's exit
        while os.read(sys.stdin.fileno(), 1024):
            pass
        on_gone()

    threading.Thread(target=wait_for_end, name="parent-watch", daemon=True).start()


async def kill_and_wait(process: asyncio.subprocess.Process) -> None:
    """``kill -9`` a child of the event loop, if it still runs, and wait until it is gone.

    Not by ``process.kill()``: that one looks for the child's end first, and so takes it away from asyncio, which then
    reports an unknown child (mended in later Pythons: CPython issue 127049).
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    await process.wait()


class Child:
    """``python -m MODULE --parent-pipe ...`` as a child process, its output in a log file or, without one, in ours."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        self._command = [*PYTHON_M, module, "--parent-pipe", *arguments]
        self._environment = None if environment is None else dict(environment)
        self._log, self._fds = log, tuple(fds)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Where its output goes; only for a child that was given one."""
        assert self._log is not None
        return self._log

    def start(self) -> None:
        """Start the child, or start it again after it has died; does nothing while it runs."""
        if self.pid is not None:
            return
        self.request_stop()
        output = None if self._log is None else self._log.open("ab")
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=self._environment,
                pass_fds=self._fds,
            )
        finally:
            if output is not None:
                output.close()

    def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """Close its stdin, which ends it cleanly; kill it if it has not ended in time."""
        self.request_stop()
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def request_stop(self) -> None:
        """Close its stdin and do not wait: it ends as if this process had died."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def terminate(self) -> None:
        """SIGTERM, and do not wait; harmless when it has ended."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """``kill -9``: no farewell."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int | None:
        """The child's process id; None when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None
