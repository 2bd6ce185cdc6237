"""What the benchmarks start and ask: servers on stores of their own, memory, and ``wrk`` as a witness from outside."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from pydantic import SecretStr

from overload_demo.api.front_door.listeners import listen
from overload_demo.config import load_settings
from overload_demo.errors import OverloadDemoError
from overload_demo.http_server import url_of
from overload_demo.jobs import new_job_id
from overload_demo.lab.sampler import count_commands
from overload_demo.load.sender import sample_body
from overload_demo.process import Child
from overload_demo.queue.producer import NewJob, Producer
from overload_demo.rest.address import Address
from overload_demo.rest.client import Upstash
from overload_demo.rest.loopback import connect
from overload_demo.store.data_dir import DataDir

START_WITHIN_S = 20.0
FILLED_AT_ONCE = 10_000
LOOK_EVERY_S = 0.05
NO_PROGRESS_S = 15.0
LEAVES_WITHIN_S = 15.0
GIVE_UP_AFTER_S = 300.0
# Those of our own server, for the servers it is compared with.
FLAGS = ("--no-access-log", "--no-server-header", "--no-proxy-headers", "--timeout-keep-alive", "30")


def environment(folder: Path, **variables: object) -> dict[str, str]:
    """A child's environment: a store of its own in ``folder``, no work in a job, nothing of the user's."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("UPSTASH", "OVERLOAD", "WORKER", "QUEUE"))}
    own = {"OVERLOAD_DATA_DIR": folder / "data", "WORKER_PROCESSING_DELAY": 0} | variables
    return clean | {name: str(value) for name, value in own.items()}


@contextlib.contextmanager
def folder_in(parent: Path) -> Iterator[Path]:
    """A folder for a store, removed once its last process has left it."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)
        if (data := Path(name) / "data").exists():
            until(DataDir(data).lock("gateway").is_free, LEAVES_WITHIN_S)


@contextlib.contextmanager
def our_api(folder: Path, *, processes: int = 1, **variables: object) -> Iterator[tuple[str, int]]:
    """The API on a store of its own; yields its URL and the id of its (first) process."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in listen("127.0.0.1", 0)]
        descriptors = [listener.fileno() for listener in listeners]
        arguments = ["--fds", ",".join(map(str, descriptors))]
        surroundings, log = environment(folder, **variables), folder / "api.log"
        apis = [
            Child("overload_demo.api", arguments, environment=surroundings, log=log, fds=descriptors)
            for _ in range(processes)
        ]
        for api in apis:
            stack.callback(api.stop)
            api.start()
        wait_for(url_of(listeners))
        yield url_of(listeners), apis[0].pid or 0


@contextlib.contextmanager
def worker(folder: Path, *arguments: str, **variables: object) -> Iterator[Child]:
    """A worker on the store in ``folder``."""
    part = Child("overload_demo.worker", arguments, environment=environment(folder, **variables), log=folder / "w.log")
    part.start()
    try:
        yield part
    finally:
        part.stop()


@contextlib.contextmanager
def uvicorn(app: str, folder: Path | None = None, *flags: str, **variables: object) -> Iterator[tuple[str, int]]:
    """Plain uvicorn with an app, on a port of its own; yields its URL and process id."""
    port = str(free_port())
    command = [sys.executable, "-m", "uvicorn", app, "--log-level", "critical", *FLAGS, *flags, "--port", port]
    process = subprocess.Popen(command, env=environment(folder, **variables) if folder else None)
    try:
        wait_for(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # it waits for connections that will not end
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def descriptor_limit(limit: int | None) -> Iterator[None]:
    """Children started in the block may open so many descriptors; None: as many as this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit or soft, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def store_processes(folder: Path) -> dict[str, int]:
    """The process ids of gateway and Redis of the store in ``folder``."""
    gateway = int(state(folder)["pid"])
    return {"gateway": gateway, "redis": psutil.Process(gateway).children()[0].pid}


def wait_for(url: str) -> None:
    """Return once something answers there, whatever it says."""
    give_up_at = time.monotonic() + START_WITHIN_S
    while time.monotonic() < give_up_at:
        with contextlib.suppress(OSError, http.client.HTTPException):
            get(url, "/openapi.json")
            return
        time.sleep(0.05)
    raise OverloadDemoError(f"nothing answers at {url}")


def stats(url: str) -> dict[str, float]:
    """The queue's numbers."""
    told: dict[str, float] = json.loads(get(url, "/queue/stats"))
    return told


def get(url: str, path: str) -> bytes:
    """The body of an answer, whatever its status."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def drained(url: str, *, for_s: float = GIVE_UP_AFTER_S) -> tuple[float, int]:
    """Jobs done a second, from the first progress until nothing is left or ``for_s`` has passed; and the looks taken.

    Raises :class:`OverloadDemoError` when there is no progress.
    """
    began, at_first, looks = time.monotonic(), stats(url)["done"], 1
    seen: list[tuple[float, float]] = []
    while not seen or seen[-1][0] - seen[0][0] < for_s:
        time.sleep(LOOK_EVERY_S)
        told, looks = stats(url), looks + 1
        if told["done"] > (seen[-1][1] if seen else at_first):
            seen.append((time.monotonic(), told["done"]))
        elif time.monotonic() - (seen[-1][0] if seen else began) > NO_PROGRESS_S:
            raise OverloadDemoError(f"no job was done for {NO_PROGRESS_S:g} s")
        if told["queue_length"] == told["in_flight"] == 0:
            break
    (first_s, first), (last_s, last) = seen[0], seen[-1]
    return (last - first) / (last_s - first_s), looks


def p50_of(
    url: str,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    status: int = 200,
    times: int,
) -> tuple[bytes, float]:
    """The last body and the median time of a request, seconds; one connection, one after the other.

    Raises :class:`OverloadDemoError` at another status.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    times_s = []
    try:
        for _ in range(times):
            since = time.perf_counter()
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            text = answer.read()
            times_s.append(time.perf_counter() - since)
            if answer.status != status:
                raise OverloadDemoError(f"{method} {path} was answered {answer.status}")
    finally:
        connection.close()
    return text, statistics.median(times_s)


def command(folder: Path, *arguments: str) -> Any:
    """Run one command on the store in ``folder``, through its gateway."""
    told = state(folder)
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = connect(Address(told["url"], SecretStr("")).socket, timeout_s=60.0)
    try:
        connection.request("POST", "/", json.dumps(arguments), {"Authorization": f"Bearer {told['token']}"})
        return json.loads(connection.getresponse().read())["result"]
    finally:
        connection.close()


def info(folder: Path, section: str) -> dict[str, str]:
    """A section of the server's INFO."""
    lines: list[str] = command(folder, "INFO", section).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def commands_run(folder: Path) -> tuple[int, int]:
    """What the server has run: script calls, and all commands with those inside scripts."""
    return count_commands(command(folder, "INFO", "commandstats"))


def wrk(url: str, connections: int, seconds: float, script: str) -> float:
    """Requests a second as wrk counts them; ``script`` is its Lua. Raises :class:`OverloadDemoError` at any error."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        threads = min(2, connections)
        options = [f"-t{threads}", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "10s", "-s", file.name]
        said = subprocess.run(["wrk", *options, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise OverloadDemoError(f"wrk met errors: {said.strip().splitlines()[-3:]}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found, said
    return float(found[1])


def posting(pause_ms: int = 0) -> str:
    """A wrk script that posts the sample job, each connection ``pause_ms`` after its last answer."""
    body = sample_body(42).decode().replace('"', r"\"")
    script = f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = "{body}"\n'
    return script + (f"function delay() return {pause_ms} end\n" if pause_ms else "")


def until(met: Callable[[], bool], within_s: float, every_s: float = 0.05) -> None:
    """Return once ``met``. Raises :class:`OverloadDemoError` after ``within_s`` seconds."""
    give_up_at = time.monotonic() + within_s
    while not met():
        if time.monotonic() > give_up_at:
            raise OverloadDemoError(f"not within {within_s:g} s")
        time.sleep(every_s)


async def fill(folder: Path, jobs: int) -> list[str]:
    """Queue so many jobs of the sample body on the store in ``folder``, as the API would; their ids in queue order."""
    told = state(folder)
    upstash = Upstash(Address(told["url"], SecretStr(told["token"])), connections=4, timeout_s=60.0)
    producer = Producer(upstash, load_settings(overload_store_deadline_s=60.0))
    job_ids: list[str] = []
    try:
        for start in range(0, jobs, FILLED_AT_ONCE):
            numbers = range(start, min(jobs, start + FILLED_AT_ONCE))
            page = [NewJob(new_job_id(), sample_body(number).decode()) for number in numbers]
            await asyncio.gather(*(producer.enqueue(job) for job in page))
            job_ids += [job.job_id for job in page]
    finally:
        await producer.aclose()
        await upstash.aclose()
    return job_ids


def state(folder: Path) -> dict[str, Any]:
    """Where the store in ``folder`` answers: url (of its socket), token, pid."""
    data_dir = DataDir(folder / "data")
    until(lambda: data_dir.read_state() is not None, START_WITHIN_S)
    told = data_dir.read_state()
    assert told is not None
    return {"url": data_dir.address(told).url, "token": told.token, "pid": told.pid}


@contextlib.contextmanager
def store_on_a_port(folder: Path) -> Iterator[dict[str, Any]]:
    """The store in ``folder`` by itself, for clients over TCP; yields its state with the URL of that port."""
    port = free_port()
    command = [sys.executable, "-m", "overload_demo.store", "--port", str(port)]
    process = subprocess.Popen(command, env=environment(folder), stdout=subprocess.DEVNULL)
    try:
        yield state(folder) | {"url": f"http://127.0.0.1:{port}"}
    finally:
        process.terminate()
        process.wait(LEAVES_WITHIN_S)
