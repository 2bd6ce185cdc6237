"""Servers on separate stores, requests to them, and ``wrk`` as a load generator from outside this project."""

import asyncio
import contextlib
import http.client
import json
import math
import os
import re
import resource
import shutil
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

from pydantic import SecretStr

from overload_demo.config import load_settings
from overload_demo.errors import OverloadDemoError
from overload_demo.http_server import listen, url_of
from overload_demo.jobs import new_job_id
from overload_demo.lab.simulated_cloud import count_commands
from overload_demo.load import LoadPlan, LoadSummary, run_load
from overload_demo.load.clients import sample_body
from overload_demo.process import Child
from overload_demo.queue.producer import NewJob, Producer
from overload_demo.rest import Address
from overload_demo.rest.client import Upstash
from overload_demo.rest.loopback import connect
from overload_demo.store.data_dir import DataDir

START_WITHIN_S = 20.0
STOP_WITHIN_S = 15.0
FILL_BATCH_JOBS = 10_000
POLL_INTERVAL_S = 0.05
DRAIN_WITHIN_S = 300.0
MAX_RATE_PER_S = 50_000
FLAGS = ("--no-access-log", "--no-server-header", "--no-proxy-headers", "--timeout-keep-alive", "30")  # as our server


def environment(folder: Path, **variables: object) -> dict[str, str]:
    """Return a child's environment: a store in ``folder``, no work in a job, none of the user's settings."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("UPSTASH", "OVERLOAD", "WORKER", "QUEUE"))}
    own = {"OVERLOAD_DATA_DIR": folder / "data", "WORKER_PROCESSING_DELAY": 0} | variables
    return clean | {name: str(value) for name, value in own.items()}


@contextlib.contextmanager
def folder_in(parent: Path) -> Iterator[Path]:
    """Yield a folder for a store; remove it once the store has no process left."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)
        if (data := Path(name) / "data").exists():
            until(DataDir(data).lock("gateway").is_free, STOP_WITHIN_S)


@contextlib.contextmanager
def our_api(
    folder: Path, *, processes: int = 1, host: str = "127.0.0.1", **variables: object
) -> Iterator[tuple[str, int]]:
    """Run the API on a store in ``folder``; yield its URL and the id of its first process."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in listen(host, 0)]
        descriptors = [listener.fileno() for listener in listeners]
        arguments = ["--fds", ",".join(map(str, descriptors))]
        own, log = environment(folder, **variables), folder / "api.log"
        apis = [
            Child("overload_demo.api", arguments, environment=own, log=log, fds=descriptors) for _ in range(processes)
        ]
        for api in apis:
            stack.callback(api.stop)
            api.start()
        wait_for(url_of(listeners))
        yield url_of(listeners), apis[0].pid or 0


@contextlib.contextmanager
def worker(folder: Path, *arguments: str, **variables: object) -> Iterator[Child]:
    """Run a worker on the store in ``folder``."""
    part = Child("overload_demo.worker", arguments, environment=environment(folder, **variables), log=folder / "w.log")
    part.start()
    try:
        yield part
    finally:
        part.stop()


@contextlib.contextmanager
def uvicorn(app: str, folder: Path | None = None, *flags: str, **variables: object) -> Iterator[tuple[str, int]]:
    """Run an app under plain uvicorn; yield its URL and process id."""
    port = str(free_port())
    own = environment(folder, **variables) if folder else None
    with program("uvicorn", app, "--log-level", "critical", *FLAGS, *flags, "--port", port, variables=own) as process:
        wait_for(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}", process.pid


@contextlib.contextmanager
def store_on_a_port(folder: Path) -> Iterator[dict[str, Any]]:
    """Run the store in ``folder`` for clients over TCP; yield its state with the URL of that port."""
    port = str(free_port())
    with program("overload_demo.store", "--port", port, variables=environment(folder), stdout=subprocess.DEVNULL):
        yield state(folder) | {"url": f"http://127.0.0.1:{port}"}


@contextlib.contextmanager
def program(
    *command: str, variables: Mapping[str, str] | None, stdout: int | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run ``python -m COMMAND``. After the block it gets a SIGTERM, and a SIGKILL if connections never end."""
    process = subprocess.Popen([sys.executable, "-m", *command], env=variables, stdout=stdout)
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN_S)
        process.kill()
        process.wait()


@contextlib.contextmanager
def descriptor_limit(limit: int | None) -> Iterator[None]:
    """Limit the descriptors of children started in the block; None keeps the limit of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit or soft, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def until(met: Callable[[], bool], within_s: float, every_s: float = POLL_INTERVAL_S, problem: str = "") -> None:
    """Return once ``met``. Raises :class:`OverloadDemoError` after ``within_s`` seconds."""
    give_up_at = time.monotonic() + within_s
    while not met():
        if time.monotonic() > give_up_at:
            raise OverloadDemoError(problem or f"not within {within_s:g} s")
        time.sleep(every_s)


def wait_for(url: str) -> None:
    """Return once a server answers at ``url``, with any status."""
    until(lambda: _answers(url), START_WITHIN_S, problem=f"nothing answers at {url}")


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        get(url, "/openapi.json")
        return True
    return False


def get(url: str, path: str) -> bytes:
    """Return the body of a response with any status."""
    return p50_of(url, path, status=None, times=1)[0]


def stats(url: str) -> dict[str, Any]:
    """Return the queue's statistics."""
    return dict(json.loads(get(url, "/queue/stats")))


def p50_of(
    url: str,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    status: int | None = 200,
    times: int,
) -> tuple[bytes, float]:
    """Send a request several times on one connection; return the last body and the median time, seconds.

    Raises :class:`OverloadDemoError` at a status other than ``status``; None accepts any.
    """
    connection, times_s = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10), []
    with contextlib.closing(connection):
        for _ in range(times):
            since = time.perf_counter()
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            text = response.read()
            times_s.append(time.perf_counter() - since)
            if status not in {None, response.status}:
                raise OverloadDemoError(f"{method} {path} was answered {response.status}")
    return text, statistics.median(times_s)


def drained(url: str, *, for_s: float = DRAIN_WITHIN_S) -> tuple[float, int]:
    """Return jobs done a second, and the number of statistics requests that this took.

    Measures from the first progress until the queue is empty or ``for_s`` seconds have passed. Raises
    :class:`OverloadDemoError` without progress, or with all of it between two looks.
    """
    began, at_first, requests = time.monotonic(), stats(url)["done"], 1
    seen: list[tuple[float, float]] = []
    while not seen or seen[-1][0] - seen[0][0] < for_s:
        time.sleep(POLL_INTERVAL_S)
        now, requests = stats(url), requests + 1
        if now["done"] > (seen[-1][1] if seen else at_first):
            seen.append((time.monotonic(), now["done"]))
        elif time.monotonic() - (seen[-1][0] if seen else began) > STOP_WITHIN_S:
            raise OverloadDemoError(f"no job was done for {STOP_WITHIN_S:g} s")
        if now["queue_length"] == now["in_flight"] == 0:
            break
    if len(seen) < 2:
        raise OverloadDemoError("too few jobs to measure a rate")
    (first_s, first), (last_s, last) = seen[0], seen[-1]
    return (last - first) / (last_s - first_s), requests


def count_done(url: str) -> Callable[[], int]:
    """Return a function that counts the jobs done; wait first until the worker does jobs."""
    before = stats(url)["done"]
    until(lambda: stats(url)["done"] > before, START_WITHIN_S, problem="the worker does no job")
    return lambda: int(stats(url)["done"])


def submitted(url: str, jobs: int, connections: int) -> LoadSummary:
    """Submit jobs as fast as possible. Raises :class:`OverloadDemoError` unless all are accepted."""
    summary = asyncio.run(run_load(LoadPlan(url, requests=jobs, connections=connections))).summary()
    if not summary.all_accepted:
        raise OverloadDemoError(f"only {summary.accepted:,} of {jobs:,} were accepted: {summary.failures}")
    return summary


def closed_loop(url: str, connections: int, seconds: float) -> LoadSummary:
    """Run the project's load generator in a closed loop for some seconds."""
    plan = LoadPlan(url, round(MAX_RATE_PER_S * seconds), connections=connections, max_duration_s=seconds)
    return asyncio.run(run_load(plan)).summary()


def accepted_per_s(url: str, connections: int, seconds: float) -> float:
    """Return the jobs accepted a second, measured by wrk where it is installed."""
    if shutil.which("wrk"):
        return wrk(f"{url}/jobs", connections, seconds, posting())
    return closed_loop(url, connections, seconds).accepted_per_s


def wrk(url: str, connections: int, seconds: float, script: str) -> float:
    """Return the requests a second that wrk counts; ``script`` is its Lua. Raises :class:`OverloadDemoError`.

    ``seconds`` are rounded up, because wrk takes whole ones.
    """
    return wrk_with_p99(url, connections, seconds, script)[0]


def wrk_with_p99(url: str, connections: int, seconds: float, script: str) -> tuple[float, float]:
    """Return the requests a second and the p99 of their latency, seconds. Raises :class:`OverloadDemoError`."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        options = [f"-t{min(2, connections)}", f"-c{connections}", f"-d{math.ceil(seconds)}s", "--timeout", "10s"]
        command = ["wrk", "--latency", *options, "-s", file.name, url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise OverloadDemoError(f"wrk reported errors: {output.strip().splitlines()[-3:]}")
    found = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b.*Requests/sec:\s+([\d.]+)", output, re.DOTALL)
    assert found, output
    return float(found[3]), float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[found[2]]


def posting(pause_ms: int = 0) -> str:
    """Return a wrk script that posts the sample job; each connection pauses after a response."""
    body = sample_body(42).decode().replace('"', r"\"")
    script = f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = "{body}"\n'
    return script + (f"function delay() return {pause_ms} end\n" if pause_ms else "")


async def fill(folder: Path, jobs: int) -> list[str]:
    """Enqueue sample jobs on the store in ``folder``, as the API does; return their ids in queue order."""
    here = state(folder)
    upstash = Upstash(Address(here["url"], SecretStr(here["token"])), connections=4, timeout_s=60.0)
    producer = Producer(upstash, load_settings(overload_store_deadline_s=60.0))
    job_ids: list[str] = []
    try:
        for start in range(0, jobs, FILL_BATCH_JOBS):
            numbers = range(start, min(jobs, start + FILL_BATCH_JOBS))
            page = [NewJob(new_job_id(), sample_body(number).decode()) for number in numbers]
            await asyncio.gather(*(producer.enqueue(job) for job in page))
            job_ids += [job.job_id for job in page]
    finally:
        await producer.aclose()
        await upstash.aclose()
    return job_ids


def state(folder: Path) -> dict[str, Any]:
    """Return the URL (of a socket), the token and the process id of the store in ``folder``."""
    data_dir = DataDir(folder / "data")
    until(lambda: data_dir.read_state() is not None, START_WITHIN_S)
    found = data_dir.read_state()
    assert found is not None
    return {"url": data_dir.address(found).url, "token": found.token, "pid": found.pid}


def command(folder: Path, *arguments: str) -> Any:
    """Run one command on the store in ``folder``, through its gateway."""
    here = state(folder)
    with contextlib.closing(http.client.HTTPConnection("localhost", timeout=60)) as connection:
        connection.sock = connect(Address(here["url"], SecretStr("")).socket, timeout_s=60.0)
        connection.request("POST", "/", json.dumps(arguments), {"Authorization": f"Bearer {here['token']}"})
        return json.loads(connection.getresponse().read())["result"]


def info(folder: Path, section: str) -> dict[str, str]:
    """Return a section of the server's INFO."""
    return dict(line.split(":", 1) for line in command(folder, "INFO", section).splitlines() if ":" in line)


def commands_run(folder: Path) -> tuple[int, int]:
    """Return what the server has run: script calls, and all commands including those inside scripts."""
    return count_commands(command(folder, "INFO", "commandstats"))
