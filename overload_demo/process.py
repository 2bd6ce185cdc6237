"""Child processes, forks, signals, descriptor limits, an event loop in a thread, the detection of a dead parent.

A child started from a notebook must ignore the kernel's Interrupt (SIGINT reaches the whole process group) and must not
outlive a killed kernel. So it ignores SIGINT and watches its stdin, a pipe from the parent, which the operating system
closes when the parent ends for any reason.
"""

import asyncio
import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from overload_demo.errors import OverloadDemoError

if TYPE_CHECKING:
    from concurrent.futures import Future

Value = TypeVar("Value")

STOP_WITHIN_S = 20.0
CHECK_THREAD_S = 0.5
ENOUGH_DESCRIPTORS = 65_536
STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM} | ({signal.SIGHUP} if hasattr(signal, "SIGHUP") else set())  # Windows
# -P: a queue.py or json.py in the working directory must not shadow the standard library
PYTHON_M = (sys.executable, "-P", "-m")
# Descriptors of locks and sockets that a forked child must not hold; their owners add and discard them.
PARENT_ONLY: set[int] = set()
_installed: dict[int, tuple[Any, Any]] = {}  # by signal: the handler installed here, and the earlier one
_forking = threading.local()


def replace_with_null(descriptors: Iterable[int]) -> None:
    """Replace each descriptor by ``/dev/null``, so that an object that holds its number can still close it."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def after_fork(action: Callable[[], object]) -> None:
    """Call ``action`` in each child that this process forks, unless the child executes another program at once."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=action)


after_fork(lambda: replace_with_null(PARENT_ONLY))


def on_stop_signals(stop: Callable[[], object]) -> None:
    """Call ``stop`` on the first SIGINT, SIGTERM or SIGHUP; a second one of its kind ends the process at once.

    A SIGHUP that is ignored, as under ``nohup``, stays ignored.
    """

    def first(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in STOP_SIGNALS:
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN:
            _installed[number] = first, signal.signal(number, first)


def _restore_earlier_handlers() -> None:
    """In a forked child: a stop signal ends it."""
    for number, (handler, before) in _installed.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, before)
    _unblock()


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _block() -> None:
    """Before a fork: a stop signal that reaches the child before its handlers are restored would be lost."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _installed)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_restore_earlier_handlers)


def watch_parent(on_gone: Callable[[], object]) -> None:
    """Ignore SIGINT, and call ``on_gone`` once, in its own thread, when stdin reaches its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_end() -> None:
        # os.read: a read through sys.stdin would hold its lock and block the interpreter's exit
        while os.read(sys.stdin.fileno(), 1024):
            pass
        on_gone()

    threading.Thread(target=wait_for_end, name="parent-watch", daemon=True).start()


def descriptor_limit() -> int:
    """Return the descriptor limit to which a process may raise its own."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft, ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_DESCRIPTORS))


def raise_descriptor_limit() -> int:
    """Raise the soft descriptor limit of this process to :func:`descriptor_limit`; return the limit in force."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some values below its stated hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor_limit(), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def kill_and_wait(process: asyncio.subprocess.Process) -> None:
    """``kill -9`` a child of the event loop, if it still runs, and wait for its end.

    ``process.kill()`` polls the child first and so reaps it before asyncio does, which then reports an unknown child
    (CPython issue 127049, fixed in later versions).
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    await process.wait()


@dataclass(eq=False)
class Child:
    """``python -m MODULE --parent-pipe ...`` as a child process; its output goes to ``log``, or to this process's."""

    module: str
    arguments: Sequence[str]
    _: KW_ONLY
    environment: Mapping[str, str] | None = None
    log: Path | None = None
    fds: Sequence[int] = ()
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def start(self) -> None:
        """Start the child, or start it again after its end; does nothing while it runs."""
        if self.pid is not None:
            return
        self.request_stop()
        with contextlib.ExitStack() as stack:
            output = None if self.log is None else stack.enter_context(self.log.open("ab"))
            command = [*PYTHON_M, self.module, "--parent-pipe", *self.arguments]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=self.environment, pass_fds=self.fds
            )

    def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """Close its stdin, which ends it in order; kill it if it has not ended in time."""
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
        """Close its stdin and do not wait: the child ends as if this process had died."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def terminate(self) -> None:
        """Send SIGTERM and do not wait; harmless after its end."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """``kill -9`` the child and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int | None:
        """The child's process id; None when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None


class LoopThread:
    """An event loop in a thread of its own, whose descriptors no forked child keeps.

    ``on_lost`` is called in the thread if the loop fails, for example because a handler closed descriptors that it does
    not own. The thread then ends, and further calls raise :class:`OverloadDemoError`.
    """

    def __init__(self, name: str, on_lost: Callable[[OSError], object] = lambda _: None) -> None:
        self._name, self._on_lost = name, on_lost
        self._selector = selectors.DefaultSelector()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        _loop_threads.add(self)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.close()
        except OSError as error:
            self._on_lost(error)

    @property
    def is_alive(self) -> bool:
        """Whether the loop runs."""
        return self._thread.is_alive()

    def start(self, work: Coroutine[Any, Any, Value]) -> "Future[Value]":
        """Start a coroutine in the thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def call(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine in the thread and return its result."""
        running = self.start(work)
        while self.is_alive:
            try:
                return running.result(CHECK_THREAD_S)
            except TimeoutError:
                if running.done():  # also when it has ended since
                    return running.result()
        with contextlib.suppress(RuntimeError):
            work.close()
        raise OverloadDemoError(f"the event loop of {self._name} has failed")

    def stop(self) -> None:
        """End the thread and close the loop."""
        _loop_threads.discard(self)
        if self.is_alive:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout=5.0)

    def descriptors(self) -> list[int]:
        """Those of the loop and of all that it watches."""
        own = [key.fd for key in (self._selector.get_map() or {}).values()]
        return own + ([self._selector.fileno()] if isinstance(self._selector, selectors.EpollSelector) else [])


_loop_threads: "weakref.WeakSet[LoopThread]" = weakref.WeakSet()
# A child that used the connections or the epoll set would change those of the parent.
after_fork(lambda: replace_with_null(fd for thread in _loop_threads for fd in thread.descriptors()))


def run_async(work: Coroutine[Any, Any, Value], ended: str) -> Value:
    """Run ``work`` to its end. Ctrl-C and SIGTERM cancel it, and exit with 130 and 143 in one line with ``ended``."""
    from overload_demo.console import fail  # of commands: typer is slow to load

    async def cancellable() -> Value:
        task = asyncio.current_task()
        assert task is not None
        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(cancellable())
    except KeyboardInterrupt:
        fail(f"interrupted; {ended}", 128 + signal.SIGINT)
    except asyncio.CancelledError:
        fail(f"terminated; {ended}", 128 + signal.SIGTERM)
