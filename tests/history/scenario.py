"""A stack of processes (API, workers, store) under load and faults, and its history."""

import asyncio
import contextlib
import itertools
import os
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from overload_demo.http_server import listen, url_of
from overload_demo.lab.history import History
from overload_demo.load import LoadPlan, Shape, run_load
from overload_demo.process import Child
from overload_demo.store.connect import Store, open_store
from tests.history.clients import Clients, final_states
from tests.history.environments import Environment
from tests.history.handlers import EXITS, FILE
from tests.history.record import Recorder, read
from tests.support.network import Network
from tests.support.running import child, free_port, make_settings, store_processes
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
DRAINED_WITHIN_S = 180.0
FIRST_VALUE = 10_000_000  # below are those of :meth:`Scenario.fire_at_once`


class Scenario:
    """One run in ``folder``; entering starts the processes, leaving ends them.

    :meth:`inject` marks the time of a fault; :meth:`fire` is the load; :meth:`history` waits until all jobs are
    finished and reads what every process recorded.

    The processes run in ``environment``. ``package`` is a folder with another ``overload_demo`` to run; ``exits`` makes
    workers end themselves (see ``handlers``). With ``network`` the scenario starts the store behind :attr:`network`;
    else API and workers start and restart it. ``api_processes`` is their number behind the API's parent;
    ``descriptors`` is the limit of the API. ``variables`` go to the processes, ``load`` to the clients.
    """

    api: Child
    workers: list[Child]
    network: Network
    store: Store
    url: str

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        environment: Environment | None = None,
        workers: int = 1,
        package: Path | None = None,
        exits: str = "never",
        network: bool = False,
        api_processes: int = 0,
        descriptors: int = 0,
        load: dict[str, Any] | None = None,
        **variables: object,
    ) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.environment = environment or Environment()
        self.worker_count, self.api_processes, self.descriptors = workers, api_processes, descriptors
        self._has_network = network
        self._load: dict[str, Any] = {"job_s": 0.004, "clients": 12, "rate_per_s": 300.0} | (load or {})
        self.restarted = 0
        self._values = itertools.count(FIRST_VALUE)
        self._recorder = Recorder(folder / "here.jsonl")
        self._cleanup = contextlib.ExitStack()
        self.variables: dict[str, Any] = {
            "PYTHONSAFEPATH": 1,  # the working directory must not hide the package
            "PYTHONPATH": _path(package),
            "WORKER_HANDLER": "tests.history.handlers:do",
            FILE: folder / "jobs.jsonl",
            EXITS: exits,
            "WORKER_LEASE_S": 1.0,
            **self.environment.variables,
            **variables,
        }

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if self._has_network:
                self.variables |= stack.enter_context(self._way_to_the_store())
            self._listen(stack)
            self.api = self._make_api()
            self.workers = [self._make_worker(number) for number in range(self.worker_count)]
            for part in (self.api, *self.workers):
                stack.callback(part.stop)
            self.start(*self.workers, self.api)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _listen(self, stack: contextlib.ExitStack) -> None:
        """Listen for the API, so that clients can connect while a killed API is started again."""
        listeners = [stack.enter_context(listener) for listener in listen("127.0.0.1", 0)]
        self.url = url_of(listeners)
        self._sockets = [listener.fileno() for listener in listeners]

    def _make_api(self) -> Child:
        if self.api_processes:
            port = free_port()
            self.url, self._sockets = f"http://127.0.0.1:{port}", []
            arguments = ["--port", str(port), "--processes", str(self.api_processes)]
        else:
            arguments = ["--fds", ",".join(map(str, self._sockets))]
        return child("overload_demo.api", *arguments, folder=self.folder, fds=self._sockets, **self.variables)

    def change_version(self, package: Path | None) -> None:
        """Stop the API and one worker cleanly, and start them from another ``package`` (None: this one)."""
        number = self.random.randrange(self.worker_count)
        for part in (self.api, self.workers[number]):
            part.stop()
        self.variables["PYTHONPATH"] = _path(package)
        self.api, self.workers[number] = self._make_api(), self._make_worker(number)
        for part in (self.api, self.workers[number]):
            self._cleanup.callback(part.stop)
            self._start(part)

    def add_worker(self) -> None:
        """Start one more worker."""
        self.workers.append(self._make_worker(len(self.workers)))
        self._cleanup.callback(self.workers[-1].stop)
        self.start(self.workers[-1])

    def _make_worker(self, number: int) -> Child:
        return child("overload_demo.worker", folder=self.folder, WORKER_ID=f"worker-{number}", **self.variables)

    @contextmanager
    def _way_to_the_store(self) -> Iterator[dict[str, object]]:
        """Start a store behind a faulty network; yields the variables with its address."""
        with open_store(make_settings(self.folder)) as store, Network(store).serving() as network:
            self.store, self.network = store, network
            address = network.store[0]
            yield {
                "UPSTASH_REDIS_REST_URL": address.url,
                "UPSTASH_REDIS_REST_TOKEN": address.token.get_secret_value(),
            }

    # ---- processes

    def start(self, *parts: Child) -> None:
        """Start the parts that do not run; returns when the API serves."""
        for part in parts:
            if part.pid is None:
                self._start(part)
        wait_until("the API is ready", self.is_ready, timeout_s=30.0)

    def _start(self, part: Child) -> None:
        with self.environment.inside(), _descriptors(self.descriptors if part is self.api else 0):
            part.start()

    def is_ready(self) -> bool:
        """Whether the API reaches the store."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health/ready", trust_env=False).status_code == 200
        return False

    # ---- faults

    @contextmanager
    def inject(self, name: str) -> Iterator[None]:
        """Record the block as a fault."""
        self._recorder.write("fault begins", name=name)
        try:
            yield
        finally:
            self._recorder.write("fault ends", name=name)

    def kill(self, *parts: Child) -> None:
        """``kill -9`` processes and start them again."""
        with self.inject("killed"):
            for part in parts:
                part.kill()
            for part in parts:
                self._start(part)

    def kill_store(self, which: str) -> bool:
        """``kill -9`` the gateway or Redis; its users restart it. False: it was just being started."""
        try:
            pid = self.store_pid(which)
            with self.inject(f"{which} killed"):
                os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
            return False
        return True

    def in_redis(self, *command: object) -> None:
        """Send a command directly to the server, past the gateway, as an administrator may."""
        parts = [str(part).encode() for part in command]
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self.folder / "data" / "redis.sock"))
            link.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))
            answer = link.recv(1000)
        assert not answer.startswith(b"-"), answer

    def store_pid(self, which: str) -> int:
        """Return the process id of the "gateway" or of "redis"; raises while there is none."""
        gateway, redis = store_processes(self.folder)
        return {"gateway": gateway, "redis": redis}[which]

    def pause(self, pid: int, for_s: float) -> None:
        """SIGSTOP a process, SIGCONT it after ``for_s`` seconds."""
        with self.inject("paused"):
            os.kill(pid, signal.SIGSTOP)
            try:
                threading.Event().wait(for_s)
            finally:
                os.kill(pid, signal.SIGCONT)

    def restart_ended_workers(self) -> int:
        """Start the workers again that have ended themselves; returns their number."""
        dead = [worker for worker in self.workers if worker.pid is None]
        for worker in dead:
            with self.inject("ended itself"):
                worker.start()
        self.restarted += len(dead)
        return len(dead)

    # ---- load

    def fire(
        self, jobs: int, fault: Callable[[], object] = lambda: None, *, every_s: float = 0.5, **load: Any
    ) -> tuple[int, float]:
        """Submit ``jobs`` and repeat ``fault`` meanwhile; returns how often, and the seconds in all.

        A fault that could not happen returns False. However few the jobs, there is time for the first one.
        """
        load = self._load | load
        if load["rate_per_s"]:
            every_s = min(every_s, jobs / load["rate_per_s"] / 3)
        clients = Clients(self.url, self._recorder, values=self._values, **load)
        thread = threading.Thread(target=lambda: asyncio.run(clients.run(jobs)))
        thread.start()
        times, since = 0, time.monotonic()
        try:
            while thread.is_alive():
                thread.join(every_s * self.random.uniform(0.5, 1.5))
                if thread.is_alive() and clients.are_submitting:
                    times += fault() is not False
        finally:
            thread.join()
        return times, time.monotonic() - since

    def fire_at_once(self, sockets: int) -> None:
        """Submit one job on each of so many sockets at the same moment; none is polled."""
        result = asyncio.run(run_load(LoadPlan(self.url, requests=sockets, shape=Shape.AT_ONCE, timeout_s=60.0)))
        since = result.started_mono_s
        for number in range(sockets):
            sent_s, done_s = float(result.sent_s[number]), float(result.done_s[number])
            job_id, status = result.job_ids[number].decode() or None, int(result.status[number])
            outcome = "ok" if job_id else "info"
            self._recorder.write("invoke", at=since + sent_s, value=number)
            self._recorder.write(outcome, at=since + done_s, value=number, status=status, job_id=job_id)

    def history(self) -> History:
        """Wait until nothing is waiting or in flight, then read the records and the final states."""
        counted: dict[str, Any] = {}

        def is_drained() -> bool:
            self.restart_ended_workers()
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"{self.url}/queue/stats", trust_env=False)
                counted.update(answer.json() if answer.is_success else {})
                return answer.is_success and counted["queue_length"] == counted["in_flight"] == 0
            return False

        wait_until("everything is drained", is_drained, DRAINED_WITHIN_S)
        history = read([self.folder / "here.jsonl", self.folder / "jobs.jsonl"])
        history.counted = counted
        ids = {one.job_id for one in history.requests if one.job_id} | {run.job_id for run in history.starts}
        history.finals = asyncio.run(final_states(self.url, ids))
        return history


def _path(package: Path | None) -> str:
    """Return the Python path: ``overload_demo`` first, then these tests."""
    return os.pathsep.join(str(path) for path in (package, ROOT) if path)


@contextmanager
def _descriptors(limit: int) -> Iterator[None]:
    """Limit the descriptors of processes started in the block; 0: this process's limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
