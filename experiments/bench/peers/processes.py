"""Context managers for what is measured: a Redis, an API, a worker. Every process ends with its block."""

import contextlib
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from experiments.bench.peers.libraries import OURS, ROOT, Contestant, Worker
from experiments.bench.servers import FLAGS, START_WITHIN_S, STOP_WITHIN_S, environment, free_port, until, wait_for
from overload_demo.errors import OverloadDemoError
from overload_demo.store.redis_server import die_with, find_server, server_options


@dataclass(frozen=True)
class PeerStack:
    """A running API with its store; ``variables`` make a worker find the same store."""

    contestant: Contestant
    url: str
    variables: Mapping[str, str]
    folder: Path

    @contextlib.contextmanager
    def working(self, worker: Worker, done: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run the worker; its jobs write to ``done``."""
        program, *arguments = shlex.split(worker.command)
        python = self.contestant.python
        command = [str(python if program == "python" else python.parent / program), *arguments]
        with _running(command, {**self.variables, "PEERS_DONE": str(done)}, self.folder / "worker.log") as process:
            yield process


@contextlib.contextmanager
def stack(contestant: Contestant, folder: Path) -> Iterator[PeerStack]:
    """Run an API of the contestant on a new store in ``folder``, without a worker."""
    if contestant.about is OURS:
        variables = environment(folder, WORKER_HANDLER="experiments.bench.peers.job:do_job", PYTHONPATH=ROOT)
        with _serving(contestant, ["-m", "overload_demo.api"], variables, folder) as running_one:
            yield running_one
        return
    with _redis(folder) as redis_url:
        variables = {**os.environ, "PEERS_REDIS_URL": redis_url, "RQ_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}
        serve = ["-m", "uvicorn", f"{contestant.about.module}:app", "--log-level", "warning", *FLAGS]
        with _serving(contestant, serve, variables, folder) as running_one:
            yield running_one


def last_line(log: Path) -> str:
    """Return the last line of a log."""
    return (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]


@contextlib.contextmanager
def _serving(
    contestant: Contestant, arguments: Sequence[str], variables: Mapping[str, str], folder: Path
) -> Iterator[PeerStack]:
    """Run an API as one process."""
    port, log = str(free_port()), folder / "api.log"
    with _running([str(contestant.python), *arguments, "--port", port], variables, log):
        try:
            wait_for(f"http://127.0.0.1:{port}")
        except OverloadDemoError as error:
            raise OverloadDemoError(f"{error}: {last_line(log)}") from None
        yield PeerStack(contestant, f"http://127.0.0.1:{port}", variables, folder)


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """Run a server in ``folder`` with the options of the embedded one, but on a port, which all clients support."""
    port = free_port()
    command = [str(find_server(None)), *server_options("0", "always"), "--port", str(port), "--bind", "127.0.0.1"]
    with _running(command, os.environ, folder / "redis.log", folder):
        until(lambda: _answers(port), START_WITHIN_S)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def _running(
    command: Sequence[str], variables: Mapping[str, str], log: Path, folder: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a separate session; at the end of the block, end every process of that session."""
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
        for left in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(left.pid) == process.pid:
                    left.kill()
        process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False
