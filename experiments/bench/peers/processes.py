"""Context managers for what is measured: a store, an API, a worker. Every process ends with its block."""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from experiments.bench.peers.libraries import ROOT, Contestant, Worker, postgres_programs
from experiments.bench.servers import FLAGS, START_WITHIN_S, STOP_WITHIN_S, environment, free_port, until, wait_for
from overload_demo.errors import OverloadDemoError
from overload_demo.store.redis_server import die_with, find_server, server_options


@dataclass(frozen=True)
class PeerStack:
    """A running API with its store; ``variables`` make a worker find the same store."""

    contestant: Contestant
    url: str
    store_url: str
    variables: Mapping[str, str]
    folder: Path

    @property
    def done(self) -> Path:
        """The file of one stamp for each job that was done."""
        return self.folder / "done"

    @contextlib.contextmanager
    def working(self, worker: Worker) -> Iterator[subprocess.Popen[bytes]]:
        """Run the worker; its jobs write to :attr:`done`."""
        self.done.touch()
        command = worker.command.format(store=self.store_url, at_once=worker.at_once)
        variables = {**self.variables, "PEERS_DONE": str(self.done), "PEERS_AT_ONCE": str(worker.at_once)}
        with _running(command, variables, self.folder / "worker.log") as process:
            yield process


@contextlib.contextmanager
def stack(contestant: Contestant, folder: Path) -> Iterator[PeerStack]:
    """Run an API of the contestant, one process, on a new store in ``folder``, without a worker."""
    about, port, log = contestant.about, free_port(), folder / "api.log"
    with contextlib.ExitStack() as running:
        stores = {"Redis": _redis, "PostgreSQL": _postgres}
        store_url = running.enter_context(stores[about.store](folder)) if about.store in stores else ""
        variables = environment(folder, WORKER_HANDLER="experiments.bench.peers.job:do_job", PYTHONPATH=ROOT)
        variables |= {"PEERS_STORE_URL": store_url, "NODE_PATH": str(contestant.folder / "node_modules")}
        variables["PATH"] = f"{contestant.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        fastapi = f"python -m uvicorn {about.module}:app --log-level warning {shlex.join(FLAGS)} --port {{port}}"
        running.enter_context(_running((about.serve or fastapi).format(port=port), variables, log))
        try:
            wait_for(f"http://127.0.0.1:{port}")
        except OverloadDemoError as error:
            raise OverloadDemoError(f"{error}: {last_line(log)}") from None
        yield PeerStack(contestant, f"http://127.0.0.1:{port}", store_url, variables, folder)


def last_line(log: Path) -> str:
    """Return the last line of a log."""
    return (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """Run a server in ``folder`` with the options of the embedded one, but on a port, which all clients support."""
    port = free_port()
    command = [str(find_server(None)), *server_options("0", "always"), "--port", str(port), "--bind", "127.0.0.1"]
    with _running(shlex.join(command), os.environ, folder / "redis.log", folder):
        until(lambda: _answers(port), START_WITHIN_S)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """Run a new PostgreSQL cluster in ``folder`` that commits to disk before it answers.

    The server refuses to run as root; then it runs as the user ``postgres``.
    """
    programs, port, data = postgres_programs(), free_port(), folder / "postgres"
    data.mkdir(mode=0o700)
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(data, user)
        for above in (folder, folder.parent):
            above.chmod(0o711)
    new = [programs / "initdb", "--auth=trust", "--username=peers", "--encoding=UTF8", "--locale=C", data]
    subprocess.run(new, cwd=data, user=user, check=True, capture_output=True)
    options = f"-c synchronous_commit=on -c fsync=on -c unix_socket_directories= -h 127.0.0.1 -p {port}"
    with _running(f"{programs / 'postgres'} -D {data} {options}", os.environ, folder / "postgres.log", data, user):
        ready = [programs / "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={port}"]
        until(lambda: subprocess.run(ready).returncode == 0, START_WITHIN_S)
        yield f"postgresql://peers@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def _running(
    command: str, variables: Mapping[str, str], log: Path, folder: Path = ROOT, user: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a separate session; at the end of the block, end every process of that session."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            shlex.split(command),
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
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
