"""Accepted a second, durably, against an endpoint that stores nothing: ``python -m experiments.bench.acceptance``.

One API process, no worker, embedded store with ``appendfsync always``. The loader is ``wrk``, where it is installed;
our own closed loop is always measured beside it, as a witness, with the CPU it took: where loader, gateway and Redis
together fill the second core, it is the whole machine that is measured.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console

from experiments.bench.record import Benchmark, Place, Row
from overload_demo.api.front_door import listen, url_of
from overload_demo.children import Child
from overload_demo.doors import one_line_errors
from overload_demo.errors import OverloadDemoError
from overload_demo.load import LoadPlan, run_load
from overload_demo.load.client import sample_body

START_WITHIN_S = 20.0
MOST_PER_S = 50_000
# Those of the front door.
FLAGS = ("--no-access-log", "--no-server-header", "--no-proxy-headers", "--timeout-keep-alive", "30")
CROWDS = {64: (1.0, 1.5), 256: (1.3, 2.0)}

Loader = Callable[[str, int, float], float]


def main(
    pairs: Annotated[int, typer.Option(help="measurements of each server", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="length of one measurement, seconds", min=1)] = 4.0,
    folder: Annotated[Path, typer.Option(help="where the store's data goes for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure both servers in turn with 64 and 256 connections, and record the ratios."""
    with one_line_errors(), tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as temporary:
        place = Place.here("experiments.bench.acceptance", Path(temporary))
        with our_api(Path(temporary)) as ours, endpoint_storing_nothing() as theirs:
            rows = [_row(_own, "own loader", crowd, ours, theirs, pairs, seconds) for crowd in CROWDS]
            if shutil.which("wrk"):
                rows = [_row(_wrk, "wrk", crowd, ours, theirs, pairs, seconds) for crowd in CROWDS] + rows
            stats = _stats(ours)
        cpu = f"{100 * min(_cpu):.0f} to {100 * max(_cpu):.0f}"
        notes: dict[str, float | str] = {
            "REST calls a job, over the whole run": round(stats["rest_calls"] / stats["accepted"], 4),
            "CPU of our own loader, % of a core": cpu,
            "flags of the endpoint that stores nothing": " ".join(FLAGS),
            "fsync p50, ms": place.fsync_p50_ms,
        }
        benchmark = Benchmark(place=place, rows=rows, notes=notes)
        benchmark.show(Console(width=120))
        print(f"written: {benchmark.save('acceptance')}")


@contextlib.contextmanager
def our_api(folder: Path) -> Iterator[str]:
    """The API as one process on a store of its own; yields its URL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UPSTASH", "OVERLOAD"))}
    environment["OVERLOAD_DATA_DIR"] = str(folder / "data")
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in listen("127.0.0.1", 0)]
        descriptors = [listener.fileno() for listener in listeners]
        arguments = ["--fds", ",".join(map(str, descriptors))]
        api = Child("overload_demo.api", arguments, environment=environment, log=folder / "api.log", fds=descriptors)
        stack.callback(api.stop)
        api.start()
        _wait_for(url_of(listeners))
        yield url_of(listeners)


@contextlib.contextmanager
def endpoint_storing_nothing() -> Iterator[str]:
    """The compared server, on a port of its own; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", "experiments.bench.storing_nothing:app", "--log-level", "warning"]
    process = subprocess.Popen([*command, *FLAGS, "--port", port])
    try:
        _wait_for(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _row(load: Loader, name: str, crowd: int, ours: str, theirs: str, pairs: int, seconds: float) -> Row:
    measured = [(load(ours, crowd, seconds), load(theirs, crowd, seconds)) for _ in range(pairs)]
    at_least, aim = CROWDS[crowd]
    return Row(
        what=f"{crowd} connections, {name}",
        unit="/s",
        ours=[one for one, _ in measured],
        theirs=[other for _, other in measured],
        at_least=at_least,
        aim=aim,
    )


def _own(url: str, connections: int, seconds: float) -> float:
    """Accepted requests a second of our own closed loop; notes what CPU it took."""
    plan = LoadPlan(url, requests=round(MOST_PER_S * seconds), connections=connections, max_duration_s=seconds)
    summary = asyncio.run(run_load(plan)).summary()
    _cpu.extend(summary.health.cpu_share)
    return summary.accepted_per_s


_cpu: list[float] = []


def _wrk(url: str, connections: int, seconds: float) -> float:
    """Requests a second as wrk counts them. Raises :class:`OverloadDemoError` when one was not accepted."""
    body = sample_body(42).decode().replace('"', r"\"")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        headers = 'wrk.headers["Content-Type"] = "application/json"'
        script.write(f'wrk.method = "POST"\n{headers}\nwrk.body = "{body}"\n')
        script.flush()
        options = ["-t2", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "10s", "-s", script.name]
        said = subprocess.run(["wrk", *options, f"{url}/jobs"], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise OverloadDemoError(f"wrk met errors: {said.strip().splitlines()[-3:]}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found, said
    return float(found[1])


def _wait_for(url: str) -> None:
    """Return once something answers there, whatever it says."""
    give_up_at = time.monotonic() + START_WITHIN_S
    while time.monotonic() < give_up_at:
        with contextlib.suppress(OSError, http.client.HTTPException):
            _get(url, "/openapi.json")
            return
        time.sleep(0.05)
    raise OverloadDemoError(f"nothing answers at {url}")


def _stats(url: str) -> dict[str, float]:
    stats: dict[str, float] = json.loads(_get(url, "/queue/stats"))
    return stats


def _get(url: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


if __name__ == "__main__":
    typer.run(main)
