"""Where the CPU time of a job goes, and what two cores can give: ``python -m experiments.bench.limit``.

``wrk`` posts to one API process; then one worker drains no-op jobs. The kernel's accounting gives the CPU time of each
process, in microseconds a job. The sampling profiler py-spy (``pip install '.[profile]'``) divides that of API and
worker among their parts, in a run of its own, because it takes CPU time too. A part is the innermost function of this
package on the stack; C code and system calls count for the part that calls them. With all cores busy, the sum over the
processes bounds the rate.
"""

import math
import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import typer

from experiments.bench.record import Folder, Rounds, Row, Seconds, recording
from experiments.bench.servers import accepted_per_s, count_done, drained, folder_in, our_api, stats, worker
from overload_demo.errors import ConfigurationError
from overload_demo.lab.parts import store_processes

SAMPLES_PER_S = 400
OTHER = "event loop"
# Part -> the functions and files that belong to it, as py-spy writes them; the first match counts.
PARTS = {
    "write responses": r"_write_direct|_whole|on_response_complete|with_head|committed|found|answered|observe",
    "validate": r"serve \(|jobs\.py",
    "read and parse HTTP": r"front_door/connection|api/direct|access\.py",
    "group commit": r"group_commit|producer\.py|consumer\.py|lease_renewer|protocol\.py",
    "exchange with the store": r"overload_demo/rest/",
    "run the job": r"worker/|work\.py",
}
_FRAME = re.compile(r"[^;]*overload_demo/[^;]*")

Shares = dict[str, float]


def main(rounds: Rounds = 3, seconds: Seconds = 5.0, folder: Folder = Path()) -> None:
    """Measure acceptance at 64 and 256 connections, and the drain, some seconds each time; record the parts."""
    cores = psutil.cpu_count() or 1
    with recording("limit", folder) as (rows, notes), folder_in(folder) as own, our_api(own) as (url, api):
        profiler = shutil.which("py-spy")
        if not (profiler and shutil.which("wrk")):
            raise ConfigurationError("install wrk, and py-spy with: pip install '.[profile]'")
        pids = {"API": api, **store_processes(own / "data")}

        def record(
            name: str, measure: Callable[[], float], shared_by: str, done: Callable[[], int] | None = None
        ) -> None:
            seen = [microseconds(pids, measure, done) for _ in range(rounds)]
            with tempfile.NamedTemporaryFile() as file:
                options = ["--rate", str(SAMPLES_PER_S), "--format", "raw", "--output", file.name]
                command = [
                    profiler,
                    "record",
                    *options,
                    "--duration",
                    f"{math.ceil(seconds)}",
                    "--pid",
                    str(pids[shared_by]),
                ]
                with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
                    measure()
                shares = _shares(Path(file.name).read_text())
            for part in seen[0]:
                unit = "/s" if part == "rate" else "µs"
                rows.append(Row(what=f"{name}: {part}", unit=unit, ours=[one[part] for one in seen]))
                if part == shared_by:
                    for inner, share in shares.items():
                        of_it = [share * one[part] for one in seen]
                        rows.append(Row(what=f"{name}: {part}, {inner}", unit="µs", ours=of_it))
            bound = [cores * 1e6 / (sum(one.values()) - one["rate"]) for one in seen]
            rows.append(Row(what=f"{name}: bound by {cores} cores", unit="/s", ours=bound))

        accepted_per_s(url, 64, seconds)  # warm up
        for connections in (64, 256):
            accept = partial(accepted_per_s, url, connections, seconds)
            record(f"accept, {connections} connections", accept, "API")
        queued = stats(url)["queue_length"]
        with worker(own) as part:
            pids["worker"] = part.pid or 0
            record("drain", lambda: drained(url, for_s=seconds)[0], "worker", count_done(url))
        notes["jobs queued when the drain began"] = queued


def microseconds(pids: dict[str, int], measure: Callable[[], float], done: Callable[[], int] | None = None) -> Shares:
    """Return each process's CPU time a job, that of the load generator, and the ``rate`` measured.

    ``done`` counts the jobs; without it, they are the rate times the time that ``measure`` took.
    """
    first = done() if done else 0
    before, since = _cpu_s(pids), time.monotonic()
    rate = measure()
    after, lasted_s = _cpu_s(pids), time.monotonic() - since
    jobs = done() - first if done else rate * lasted_s
    used = {name: 1e6 * (after[name] - before[name]) / jobs for name in before}
    return used | {"rate": rate}


def _cpu_s(pids: dict[str, int]) -> Shares:
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    loader = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {name: one.user + one.system for name, one in times.items()}
    return spent | {"load generator": loader.ru_utime + loader.ru_stime}


def _shares(raw: str) -> Shares:
    """Divide the samples of a profile (lines of ``frame;frame;… count``) among the parts; the shares add up to 1."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = _FRAME.findall(stack)
        innermost = frames[-1] if frames else ""
        found = (part for part, pattern in PARTS.items() if re.search(pattern, innermost))
        counts[next(found, OTHER)] += int(count)
    return {part: count / counts.total() for part, count in counts.most_common()}


if __name__ == "__main__":
    typer.run(main)
