"""100,000 sockets opened at the same moment, beside plain uvicorn: ``python -m experiments.bench.at_once``.

One API process each, with the same app, store, worker and load. Then 10,000 sockets against 256 descriptors, with
uvloop and with asyncio's event loop. Every id in a response is looked up in the store. Last, ``h2load``, a load
generator in C, opens the same sockets: the difference is the cost of the load generator.
"""

import asyncio
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import typer
from matplotlib.axes import Axes

from experiments.bench import servers
from experiments.bench.record import RESULTS, Count, Folder, Rounds, Row, recording
from overload_demo.errors import OverloadDemoError
from overload_demo.lab import BLUE, GREY, NAIVE, ORANGE, QUEUE
from overload_demo.lab.parts import store_processes
from overload_demo.lab.plots.accessible_figure import drawing
from overload_demo.load import LoadPlan, LoadProgress, LoadResult, Shape, run_load
from overload_demo.load.clients import sample_body

CLIENT_TIMEOUT_S = 60.0
SAMPLE_EVERY_S = 0.25
COLOURS = {"202": BLUE, "reset": ORANGE, "timed out": "#E69F00", "other": GREY}
LIMIT = 256
LOOKUP_BATCH = 1000
H2LOADS = 12  # each to an address of its own: with few addresses, the search for free ports takes most of the time


@dataclass(frozen=True)
class Case:
    """A server: front door or plain uvicorn, with so many descriptors (None: all that this machine allows)."""

    name: str
    is_ours: bool
    sockets: int
    descriptors: int | None = None
    without_uvloop: bool = False


@dataclass(frozen=True)
class SocketsRun:
    """One run; ``peak_mb`` is PSS by process, ``in_store`` counts the ids in responses that the store holds."""

    load: LoadResult
    peak_mb: dict[str, float]
    in_store: int

    @property
    def answered_percent(self) -> float:
        """Share of the sockets that were answered 202 and whose id is in the store."""
        return 100 * self.in_store / self.load.kind.size

    @property
    def slowest_s(self) -> float:
        """Time of the last 202, seconds; 0 without any."""
        return float(np.nanmax(self.load.done_s, where=self.load.accepted, initial=0.0))

    @property
    def counts(self) -> str:
        """The outcome of all sockets as text."""
        summary = self.load.summary()
        return ", ".join(f"{count:,} {name}" for name, count in {"202": summary.accepted, **summary.failures}.items())


def main(rounds: Rounds = 5, sockets: Count = 100_000, few: Count = 10_000, folder: Folder = Path()) -> None:
    """Open ``sockets`` at once, and ``few`` against 256 descriptors; record responses, times and memory."""
    few_name = f"{LIMIT} descriptors"
    cases = [
        Case("our front door", True, sockets),
        Case("plain uvicorn", False, sockets),
        Case(f"our front door, {few_name}", True, few, LIMIT),
        Case(f"our front door, {few_name}, asyncio", True, few, LIMIT, without_uvloop=True),
        Case(f"plain uvicorn, {few_name}", False, few, LIMIT),
    ]
    with recording("at_once", folder) as (rows, notes):
        seen: dict[Case, list[SocketsRun]] = {case: [] for case in cases}
        for _ in range(rounds):
            for case in cases:
                run = _fire(case, folder)
                seen[case].append(run)
                memory = ", ".join(f"{name} {size:.0f}" for name, size in run.peak_mb.items())
                print(f"{case.name}: {run.counts}; last 202 after {run.slowest_s:.1f} s; MB: {memory}")
        rows += [row for case in cases for row in _rows(case, seen[case])]
        notes |= {f"answers in round 1, {case.name}": seen[case][0].counts for case in cases}
        rows += _h2load_rows([_h2load(sockets, folder) for _ in range(rounds)] if shutil.which("h2load") else [])
        notes["clients waited, s"] = CLIENT_TIMEOUT_S
        _draw(RESULTS / "bench_at_once.png", {case: runs[0] for case, runs in seen.items()})


def _rows(case: Case, runs: list[SocketsRun]) -> list[Row]:
    what, memory = f"{case.sockets:,} sockets at once, {case.name}", "memory in that run (peak PSS), "
    bounds = {"at_least": 100.0, "aim": 100.0} if case.is_ours else {}
    in_mb: dict[str, Any] = {"unit": "MB", "less_is_better": True}
    api, answered = [one.peak_mb["api"] for one in runs], [one.answered_percent for one in runs]
    rows = [
        Row(what=f"{what}: answered 202 and in the store", unit="%", ours=answered, **bounds),
        Row(what=f"{what}: the last 202 after", unit="s", ours=[one.slowest_s for one in runs], less_is_better=True),
    ]
    if case.descriptors is not None:
        return rows
    if not case.is_ours:
        return [*rows, Row(what=f"{memory}plain uvicorn", ours=api, **in_mb)]
    together = [sum(one.peak_mb.values()) for one in runs]
    rows.append(Row(what=f"{memory}API", ours=api, at_least=128, aim=100, **in_mb))
    all_parts = f"{memory}API + worker + gateway + Redis"
    return [*rows, Row(what=all_parts, ours=together, at_least=512, aim=350, **in_mb)]


def _fire(case: Case, parent: Path) -> SocketsRun:
    """Run one case on a new store, with a worker beside it."""
    with servers.folder_in(parent) as folder, ExitStack() as stack:
        doing = stack.enter_context(servers.worker(folder, WORKER_PROCESSING_DELAY=0.0004))
        servers.until((folder / "data" / "state.json").exists, within_s=20)  # the start of the store is not compared
        if case.without_uvloop:
            (folder / "uvloop.py").write_text("raise ImportError('not in this run')\n")
        with servers.descriptor_limit(case.descriptors):
            api_of_case = servers.our_api if case.is_ours else partial(servers.uvicorn, "overload_demo.api.app:app")
            url, api = stack.enter_context(api_of_case(folder, PYTHONPATH=folder))
        processes = {"api": api, "worker": doing.pid or 0, **store_processes(folder / "data")}
        memory = _MemoryWatch(processes)
        plan = LoadPlan(url, requests=case.sockets, shape=Shape.AT_ONCE, timeout_s=CLIENT_TIMEOUT_S)
        load = asyncio.run(run_load(plan, on_progress=memory))
        return SocketsRun(load, memory.peak_mb, _found(folder, set(load.accepted_ids)))


class _MemoryWatch:
    """The largest PSS of each process so far, MB; looks at most four times a second while the load reports."""

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._look_at = 0.0
        self.peak_mb = dict.fromkeys(processes, 0.0)

    def __call__(self, _: LoadProgress) -> None:
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + SAMPLE_EVERY_S
            for name, process in self._processes.items():
                size_mb = round(process.memory_full_info().pss / 1e6, 1)
                self.peak_mb[name] = max(self.peak_mb[name], size_mb)


def _h2load(sockets: int, parent: Path) -> tuple[float, float, float]:
    """Open the sockets with h2load, in place of ours; return seconds until all ended, CPU s of the API and of h2load.

    Raises :class:`OverloadDemoError` unless every socket got a 202.
    """
    with servers.folder_in(parent) as folder, ExitStack() as stack:
        stack.enter_context(servers.worker(folder, WORKER_PROCESSING_DELAY=0.0004))
        every = "0.0.0.0"  # noqa: S104 - its loopback addresses are used
        url, api = stack.enter_context(servers.our_api(folder, host=every, OVERLOAD_ALLOWED_HOSTS="*"))
        (folder / "body").write_bytes(sample_body(42))
        each = str(sockets // H2LOADS)
        command = ["h2load", "--h1", "-n", each, "-c", each, "-d", str(folder / "body")]
        command += ["-H", "Content-Type: application/json"]
        targets = [f"http://127.0.0.{1 + number}:{urlsplit(url).port}/jobs" for number in range(H2LOADS)]
        since, before_s = time.monotonic(), _cpu_s(api)
        clients = [psutil.Popen([*command, target], stdout=subprocess.PIPE, text=True) for target in targets]
        ended = [(client.stdout.read(), sum(client.cpu_times()[:2]), client.wait()) for client in clients]
        if not all(f"{each} 2xx" in output for output, *_ in ended):
            raise OverloadDemoError(f"h2load: {ended[0][0]}")
        return time.monotonic() - since, _cpu_s(api) - before_s, sum(cpu_s for _, cpu_s, _ in ended)


def _cpu_s(pid: int) -> float:
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


def _h2load_rows(runs: list[tuple[float, float, float]]) -> list[Row]:
    names = ("the last 202 after", "CPU of the API", "CPU of h2load")
    seconds: dict[str, Any] = {"unit": "s", "less_is_better": True}
    columns = zip(names, zip(*runs, strict=True), strict=False)
    return [Row(what=f"sockets opened by h2load: {name}", ours=list(values), **seconds) for name, values in columns]


def _found(folder: Path, job_ids: set[str]) -> int:
    """Return how many of these jobs the store holds."""
    names = [f"job:{job_id}" for job_id in job_ids]
    pages = [names[start : start + LOOKUP_BATCH] for start in range(0, len(names), LOOKUP_BATCH)]
    found = sum(int(servers.command(folder, "EXISTS", *page)) for page in pages)
    if found > len(job_ids):
        raise OverloadDemoError("the store holds more jobs than were looked up")
    return found


def _draw(path: Path, runs: dict[Case, SocketsRun]) -> None:
    """Left: responses over time. Right: the outcome of all sockets."""
    with drawing(1, 2, height=5.5, width=16, width_ratios=(1.1, 1)) as (drawn, (course, outcomes)):
        _draw_course(course, runs)
        _draw_outcomes(outcomes, runs)
        drawn.savefig(path, dpi=100)


def _draw_course(axes: Axes, runs: dict[Case, SocketsRun]) -> None:
    for case, run in runs.items():
        if case.descriptors is None:
            done_s = np.sort(run.load.done_s[run.load.accepted])
            shares = np.arange(1, done_s.size + 1) / run.load.kind.size * 100
            axes.plot(done_s, shares, label=case.name, **(QUEUE if case.is_ours else NAIVE))
    axes.set(xlabel="seconds since the first socket opened", ylabel="answered 202, %", xlim=(0, None), ylim=(0, 104))
    axes.set_title(f"{max(case.sockets for case in runs):,} sockets opened at once, one API process", loc="left")
    axes.legend(loc="lower right")


def _draw_outcomes(axes: Axes, runs: dict[Case, SocketsRun]) -> None:
    names = [f"{case.name.replace(', ', chr(10), 1)}\n{case.sockets:,} sockets" for case in runs]
    shares = [_shares(run) for run in runs.values()]
    left = np.zeros(len(names))
    for outcome, colour in COLOURS.items():
        widths = np.array([one[outcome] for one in shares])
        axes.barh(names, widths, left=left, color=colour, label=outcome)
        left += widths
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", labelsize=12)
    axes.set(xlabel="% of the sockets", xlim=(0, 100))
    axes.set_title("Outcome of all sockets", loc="left")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.15), ncols=4)


def _shares(run: SocketsRun) -> dict[str, float]:
    summary = run.load.summary()
    timed_out, reset = summary.connect_timeout + summary.read_timeout, summary.reset + summary.disconnected
    counts = {"202": summary.accepted, "reset": reset, "timed out": timed_out}
    counts["other"] = summary.planned - sum(counts.values())
    return {name: 100 * count / summary.planned for name, count in counts.items()}


if __name__ == "__main__":
    typer.run(main)
