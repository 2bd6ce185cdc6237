"""What is measured, running for the length of a ``with`` block: a Redis, an API, a worker. None outlives its block."""

import contextlib
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from experiments.bench.peers.environments import ROOT, Contestant
from experiments.bench.peers.libraries import OURS, Worker
from experiments.bench.servers import FLAGS, environment, free_port, until, wait_for
from overload_demo.errors import OverloadDemoError
from overload_demo.store.redis_server import die_with
from overload_demo.store.server_binary import find_server, server_options

START_WITHIN_S, STOP_WITHIN_S = 20.0, 20.0


@dataclass(frozen=True)
class Stack:
    """A running API with its store; ``variables`` is what a worker needs to find the same store."""

    contestant: Contestant
    url: str
    variables: Mapping[str, str]
    folder: Path

    @contextlib.contextmanager
    def working(self, worker: Worker, done: Path) -> Iterator[subprocess.Popen[bytes]]:
        """The worker, its jobs writing to ``done``."""
        program, *arguments = shlex.split(worker.command)
        python = self.contestant.python
        command = [str(python if program == "python" else python.parent / program), *arguments]
        with running(command, {**self.variables, "PEERS_DONE": str(done)}, self.folder / "worker.log") as process:
            yield process


@contextlib.contextmanager
def stack(contestant: Contestant, folder: Path) -> Iterator[Stack]:
    """An API of the contestant on a new store in ``folder``; no worker."""
    with our_stack(contestant, folder) if contestant.about is OURS else peer_stack(contestant, folder) as running_one:
        yield running_one


@contextlib.contextmanager
def our_stack(contestant: Contestant, folder: Path) -> Iterator[Stack]:
    """Ours: the API with its embedded store, which ends by itself after its last user."""
    variables = environment(folder, WORKER_HANDLER="experiments.bench.peers.job:do_job", PYTHONPATH=ROOT)
    with serving(contestant, ["-m", "overload_demo.api"], variables, folder) as running_one:
        yield running_one
    until(lambda: not _living_in(folder), STOP_WITHIN_S)


@contextlib.contextmanager
def peer_stack(contestant: Contestant, folder: Path) -> Iterator[Stack]:
    """A peer: uvicorn with its app, and a Redis."""
    with redis(folder) as redis_url:
        variables = {**os.environ, "PEERS_REDIS_URL": redis_url, "RQ_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}
        serve = ["-m", "uvicorn", f"{contestant.about.module}:app", "--log-level", "warning", *FLAGS]
        with serving(contestant, serve, variables, folder) as running_one:
            yield running_one


@contextlib.contextmanager
def serving(
    contestant: Contestant, arguments: Sequence[str], variables: Mapping[str, str], folder: Path
) -> Iterator[Stack]:
    """An API on a port of its own, as one process."""
    port, log = str(free_port()), folder / "api.log"
    with running([str(contestant.python), *arguments, "--port", port], variables, log):
        try:
            wait_for(f"http://127.0.0.1:{port}")
        except OverloadDemoError as error:
            raise OverloadDemoError(f"{error}: {last_line(log)}") from None
        yield Stack(contestant, f"http://127.0.0.1:{port}", variables, folder)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A server in ``folder`` with the very options of our own, but on a port, which is what all clients know."""
    port = free_port()
    command = [str(find_server(None)), *server_options("0", "always"), "--port", str(port), "--bind", "127.0.0.1"]
    with running(command, os.environ, folder / "redis.log", folder):
        until(lambda: _answers(port), START_WITHIN_S)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def running(
    command: Sequence[str], variables: Mapping[str, str], log: Path, folder: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; when the block ends, so does everything in that session."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with(os.getpid()),
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN_S)
        for left in _session_of(process.pid):
            with contextlib.suppress(psutil.Error):
                left.kill()
        process.wait()


def last_line(log: Path) -> str:
    """What a process said last."""
    return (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


def _living_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


def _session_of(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == leader:
                found.append(process)
    return found
