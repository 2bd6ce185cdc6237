"""Run a student's file in processes of its own that ask the referee before each step.

A step is a command to the store, a run of a job, or a wait. The referee performs it and answers, or kills the process
instead: so a fault hits exactly the chosen step, on any machine and under any load. Limits are in CPU time, not in time
by the clock, for the same reason. Not a defence against malice: the code runs with the rights of its user.
"""

import builtins
import contextlib
import inspect
import io
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

CPU_S = 2  # chosen: a call takes milliseconds
MEMORY_BYTES = 1 << 30
MOST_PRINTED = 10_000  # characters
Arguments = Mapping[str, tuple[str, ...]]  # of each function that a file must have

ARGUMENTS: Arguments = {"submit": ("store", "job"), "work": ("store", "run"), "recover": ("store",)}

# Audit events of CPython, or their beginnings, that a repair has no reason to cause.
FORBIDDEN = {
    **dict.fromkeys(("os.fork", "os.posix_spawn", "os.exec", "os.system", "subprocess.", "pty."), "starts a process"),
    **dict.fromkeys(("_thread.start", "ctypes."), "starts a thread or loads foreign code"),
    **dict.fromkeys(("os.kill", "signal.pthread_kill"), "sends a signal"),
    **dict.fromkeys(("os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink"), "changes files"),
    **dict.fromkeys(("shutil.", "os.mkdir", "os.chmod", "os.chown"), "changes files"),
    "socket.": "opens a connection of its own",
}
FORBIDDEN_MODULES = {"ctypes", "_ctypes", "multiprocessing", "_posixsubprocess", "_posixshmem"}


class CommandRefusedError(Exception):
    """The store has refused a command."""


class JobError(Exception):
    """The work of a job has failed."""


class Zygote:
    """Forks a process for the file each time; created before threads and connections exist, so that a fork is safe."""

    def __init__(self, path: Path, arguments: Arguments) -> None:
        self._control, other = socket.socketpair()
        if os.fork() == 0:
            self._control.close()
            _serve(other, path, arguments)
        other.close()

    def spawn(self) -> tuple[int, socket.socket]:
        """Start a process; return its id and the channel on which it asks."""
        mine, its = socket.socketpair()
        with its:
            socket.send_fds(self._control, [b"spawn"], [its.fileno()])
        return int(self._control.recv(64)), mine

    def status_of(self, pid: int) -> int:
        """Wait for the end of a process; return the signal that ended it as a negative number, or its exit code."""
        self._control.send(b"%d" % pid)
        return int(self._control.recv(64))


def _serve(control: socket.socket, path: Path, arguments: Arguments) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            request, fds, *_ = socket.recv_fds(control, 64, 1)
            if not request:
                break
            if request == b"spawn":
                if (pid := os.fork()) == 0:
                    control.close()
                    _play(path, socket.socket(fileno=fds[0]), arguments)
                os.close(fds[0])
                control.send(b"%d" % pid)
            else:
                control.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(int(request), 0)[1]))
    finally:
        os._exit(0)


class _Channel:
    """Questions to the referee and its answers, a JSON line each."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rw")

    def tell(self, *words: Any) -> None:
        self._stream.write(json.dumps(words) + "\n")
        self._stream.flush()

    def read(self) -> Any:
        if not (line := self._stream.readline()):
            os._exit(0)  # the referee has ended
        return json.loads(line)

    def ask(self, *words: Any) -> Any:
        self.tell(*words)
        verdict, value = self.read()
        if verdict == "ok":
            return value
        raise {"refused": CommandRefusedError, "failed": JobError}[verdict](value)

    def give_up(self, reason: str) -> NoReturn:
        with contextlib.suppress(BaseException):
            self.tell("ended", reason)
        os._exit(1)


class Store:
    """The store: each method is a command, ``store.hset("results", job, result)``; returns the reply."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def __getattr__(self, command: str) -> Callable[..., Any]:
        if command.startswith("_"):
            raise AttributeError(command)

        def send(*words: object, **named: object) -> Any:
            if named:
                raise TypeError(f"store.{command} takes its words in the order of Redis, without {'=, '.join(named)}=")
            return self._channel.ask("command", command.upper(), *map(_word, words))

        return send


def _word(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"the store takes texts and numbers, not {value!r:.80}")
    return str(value)


class _Printed(io.TextIOBase):
    """Standard output: sent to the referee, up to a limit."""

    def __init__(self, channel: _Channel) -> None:
        self._channel, self._left = channel, MOST_PRINTED

    def write(self, text: str) -> int:
        self._left -= len(text)
        if self._left < 0:
            self._channel.give_up(f"prints more than {MOST_PRINTED:,} characters")
        self._channel.tell("printed", text)
        return len(text)


def _play(path: Path, connection: socket.socket, arguments: Arguments) -> NoReturn:
    """Load the file, then carry out the referee's calls until it hangs up or kills this process."""
    channel = _Channel(connection)
    try:
        namespace = _load(path, channel)
        if problem := _wrong_signature(namespace, arguments):
            channel.give_up(problem)
        channel.tell("ready", [name for name in ARGUMENTS if name in namespace])
        store, run = Store(channel), lambda job, order=None: channel.ask("run", _word(job), order)
        while True:
            name, *values = channel.read()
            own = [store, run] if name == "work" else [store]
            returned = namespace[name](*own, *values)
            channel.tell("returned", returned if isinstance(returned, str | int | None) else repr(returned))
    except BaseException as error:
        channel.give_up(_explain(error, path))


def _load(path: Path, channel: _Channel) -> dict[str, Any]:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    # Replaced before the file is loaded: a wait costs the referee's clock, and no real time.
    time.sleep = lambda seconds: channel.ask("sleep", float(seconds))
    sys.stdout = sys.stderr = _Printed(channel)
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    code = compile(path.read_bytes(), str(path), "exec")
    sys.addaudithook(lambda event, details: _watch(event, details, channel))
    namespace: dict[str, Any] = {"__name__": path.stem, "__builtins__": builtins}
    exec(code, namespace)  # noqa: S102 - what this module is for
    return namespace


def _watch(event: str, details: tuple[Any, ...], channel: _Channel) -> None:
    """Audit hook: end the process at the first forbidden event."""
    reason = next((text for name, text in FORBIDDEN.items() if event.startswith(name)), "")
    if event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        reason = "changes files"
    if event == "import" and str(details[0]).partition(".")[0] in FORBIDDEN_MODULES:
        reason = "starts a process or loads foreign code"
    if reason:
        channel.give_up(f"{reason} ({event}): a repair uses only the store")


def _wrong_signature(namespace: dict[str, Any], arguments: Arguments) -> str:
    for name, wanted in ({**ARGUMENTS, **arguments}).items():
        call = f"{name}({', '.join(wanted)})"
        function = namespace.get(name)
        if function is None and name == "recover":
            continue
        if not callable(function):
            return f"has no function {call}"
        if inspect.iscoroutinefunction(function):
            return f"has an async {name}, which is called without await: write def {call}"
        try:
            inspect.signature(function).bind(*wanted)
        except (TypeError, ValueError) as error:
            return f"has a {name} that cannot be called as {call}: {error}"
    return ""


def _explain(error: BaseException, path: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), None)
    where = f" in line {line}" if line else ""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"raised {type(error).__name__}{where}: {message}"[:300].split()).rstrip(":")
