"""A stack under load while faults are injected, and its history: API, workers and store as processes of their own."""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from overload_demo.api.front_door import listen, url_of
from overload_demo.children import Child
from overload_demo.store.opening import open_store
from tests.history.record import FILE, Final, History, Outcome, Recorder, read
from tests.support.network import Network, network_to
from tests.support.running import child, make_settings, store_processes
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
CLIENTS = 12
JOB_S = 0.002
DRAINED_WITHIN_S = 60.0


class Scenario:
    """Everything of one run lives in ``folder``; ``package`` is a folder with another ``overload_demo`` to run.

    ``loses_answers`` is the share of the store's answers that never arrive. Entering starts the processes, leaving
    ends them; :meth:`inject` what is to be explained by a fault; :meth:`fire` is the load; :meth:`history` waits until
    all is quiet and reads what everybody wrote down.
    """

    listeners: list[socket.socket]
    api: Child
    workers: list[Child]
    network: Network

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        workers: int = 1,
        package: Path | None = None,
        loses_answers: float = 0.0,
        **variables: object,
    ) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self._count, self._loses_answers = workers, loses_answers
        self._recorder = Recorder(folder / "here.jsonl")
        self._cleanup = contextlib.ExitStack()
        self._surroundings: dict[str, object] = {
            "PYTHONSAFEPATH": 1,  # the working directory must not hide the package
            "PYTHONPATH": os.pathsep.join(str(path) for path in (package, ROOT) if path),
            "WORKER_HANDLER": "tests.history.record:do",
            FILE: folder / "jobs.jsonl",
            "WORKER_LEASE_S": 1.0,
            **variables,
        }

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if self._loses_answers:
                self._surroundings |= stack.enter_context(self._lossy_way_to_the_store())
            self.listeners = [stack.enter_context(listener) for listener in listen("127.0.0.1", 0)]
            descriptors = [listener.fileno() for listener in self.listeners]
            arguments = ["--fds", ",".join(map(str, descriptors))]
            self.api = child("overload_demo.api", *arguments, folder=self.folder, fds=descriptors, **self._surroundings)
            self.workers = [
                child("overload_demo.worker", folder=self.folder, WORKER_ID=f"worker-{number}", **self._surroundings)
                for number in range(self._count)
            ]
            for part in (self.api, *self.workers):
                stack.callback(part.stop)
                part.start()
            wait_until("the API is ready", self._is_ready, timeout_s=30.0)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def url(self) -> str:
        """Where the API is."""
        return url_of(self.listeners)

    @contextmanager
    def _lossy_way_to_the_store(self) -> Iterator[dict[str, object]]:
        """The store behind a network that cuts off answers; yields the variables that lead there."""
        settings = make_settings(self.folder)
        with open_store(settings) as store, network_to(store) as network, self.inject("answers cut off"):
            network.loses_answers = self._loses_answers
            self.network = network
            address = network.store[0]
            yield {
                "UPSTASH_REDIS_REST_URL": address.url,
                "UPSTASH_REDIS_REST_TOKEN": address.token.get_secret_value(),
            }

    # ---- faults

    @contextmanager
    def inject(self, name: str) -> Iterator[None]:
        """Whatever is done in the block is a fault."""
        self._recorder.write("fault begins", name=name)
        try:
            yield
        finally:
            self._recorder.write("fault ends", name=name)

    def kill(self, part: Child) -> None:
        """``kill -9`` a child of ours and start it again."""
        with self.inject(f"{part.log.stem} killed"):
            part.kill()
            part.start()

    def kill_store(self, which: str) -> None:
        """``kill -9`` the gateway or Redis; whoever finds it dead starts it again."""
        with contextlib.suppress(OSError, ValueError, KeyError):  # it is being started just now
            gateway, redis = store_processes(self.folder)
            with self.inject(f"{which} killed"):
                os.kill({"gateway": gateway, "redis": redis}[which], signal.SIGKILL)

    def pause(self, pid: int, for_s: float) -> None:
        """SIGSTOP a process, SIGCONT it after ``for_s`` seconds."""
        with self.inject(f"{pid} paused"):
            os.kill(pid, signal.SIGSTOP)
            try:
                threading.Event().wait(for_s)
            finally:
                os.kill(pid, signal.SIGCONT)

    # ---- load

    def fire(self, jobs: int, faults: Callable[[], object], *, every_s: float, url: str | None = None) -> int:
        """Submit ``jobs`` from a few clients, and do ``faults`` again and again meanwhile; returns how often it was."""
        load = threading.Thread(target=lambda: asyncio.run(_Clients(url or self.url, self._recorder).run(jobs)))
        load.start()
        times = 0
        while load.is_alive():
            load.join(every_s * self.random.uniform(0.5, 1.5))
            if load.is_alive():
                faults()
                times += 1
        load.join()
        return times

    def history(self) -> History:
        """Wait until nothing is waiting or in flight, then read what was written down and what the store holds."""
        counted: dict[str, Any] = {}

        def is_quiet() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"{self.url}/queue/stats", trust_env=False)
                counted.update(answer.json() if answer.is_success else {})
                return answer.is_success and counted["queue_length"] == counted["in_flight"] == 0
            return False

        wait_until("everything is drained", is_quiet, DRAINED_WITHIN_S)
        history = read([self.folder / "here.jsonl", self.folder / "jobs.jsonl"])
        history.counted = counted
        ids = {one.job_id for one in history.requests if one.job_id} | {run.job_id for run in history.starts}
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            for job_id in ids:
                answer = client.get(f"/jobs/{job_id}")
                if answer.status_code == 200:
                    told = answer.json()
                    history.finals[job_id] = Final(told["status"], told.get("result"))
        return history

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health/ready", trust_env=False).status_code == 200
        return False


class _Clients:
    """Submit and poll, and write down what they were told."""

    def __init__(self, url: str, recorder: Recorder) -> None:
        self._url, self._recorder = url, recorder
        self._values = itertools.count()
        self._polling: set[asyncio.Task[None]] = set()

    async def run(self, jobs: int) -> None:
        """Submit so many jobs; some are polled until they are done, or all have been submitted for a while."""
        async with httpx.AsyncClient(base_url=self._url, timeout=15.0, trust_env=False) as client:
            await asyncio.gather(*(self._submit(client, jobs) for _ in range(CLIENTS)))
            _, unfinished = await asyncio.wait(self._polling, timeout=5.0) if self._polling else (set(), set())
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def _submit(self, client: httpx.AsyncClient, jobs: int) -> None:
        while (value := next(self._values)) < jobs:
            self._recorder.write("invoke", value=value)
            outcome, job_id = await self._post(client, value)
            self._recorder.write(outcome, value=value, job_id=job_id)
            if outcome == "ok" and value % 10 == 0:
                self._polling.add(asyncio.create_task(self._poll(client, job_id)))

    async def _post(self, client: httpx.AsyncClient, value: int) -> tuple[Outcome, Any]:
        try:
            answer = await client.post("/jobs", json={"name": "n", "value": value, "message": str(JOB_S)})
        except httpx.ConnectError:
            return "fail", None
        except httpx.HTTPError:
            return "info", None
        told = answer.json()
        if answer.status_code == 202:
            return "ok", told["job_id"]
        definite = answer.status_code < 500 or told.get("outcome") == "not_enqueued"
        return ("fail", None) if definite else ("info", told.get("job_id"))

    async def _poll(self, client: httpx.AsyncClient, job_id: str) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.get(f"/jobs/{job_id}")
                if answer.status_code == 200:
                    told = answer.json()
                    seen = {"position": told.get("queue_position"), "result": told.get("result")}
                    self._recorder.write("poll", job_id=job_id, status=told["status"], **seen)
                    if told["status"] in {"done", "failed"}:
                        return
            await asyncio.sleep(0.1)
