"""100,000 sockets opened at the same moment, beside plain uvicorn: ``python -m experiments.bench.at_once``.

One API process each, the same app, the same store, the same worker, the same load. Then 10,000 sockets against 256
descriptors, with uvloop and with asyncio's own loop. Every id that a client of ours was told is looked up in the store.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from matplotlib.axes import Axes

from experiments.bench.record import RESULTS, Benchmark, Place, Row
from experiments.bench.servers import (
    command,
    descriptor_limit,
    folder_in,
    our_api,
    store_processes,
    until,
    uvicorn,
    worker,
)
from overload_demo.console import one_line_errors
from overload_demo.errors import OverloadDemoError
from overload_demo.lab.colours import BLUE, GREY, ORANGE
from overload_demo.lab.plots.accessible_figure import NAIVE, QUEUE, drawing
from overload_demo.load import LoadPlan, LoadResult, Shape, run_load

CLIENTS_WAIT_S = 60.0
SAMPLE_EVERY_S = 0.25
MEGABYTE = 1_000_000
YELLOW = "#E69F00"
APP = "overload_demo.api.app:app"
FEW_DESCRIPTORS = 256
LOOKED_UP_AT_ONCE = 1000


@dataclass(frozen=True)
class Case:
    """What is fired at: our front door or plain uvicorn, with so many descriptors (None: all this machine allows)."""

    name: str
    is_ours: bool
    sockets: int
    descriptors: int | None = None
    without_uvloop: bool = False


@dataclass(frozen=True)
class Outcome:
    """One run; ``peak_mb`` by process, PSS. ``in_store``: of the ids that clients were told, distinct and found."""

    load: LoadResult
    peak_mb: dict[str, float]
    in_store: int

    @property
    def answered_percent(self) -> float:
        """Sockets that were answered 202, whose id is in the store."""
        return 100 * self.in_store / self.load.kind.size

    @property
    def slowest_s(self) -> float:
        """When the last of those who were accepted had its answer."""
        return float(np.nanmax(self.load.done_s[self.load.accepted]))


def main(
    rounds: Annotated[int, typer.Option(help="how often", min=1)] = 5,
    sockets: Annotated[int, typer.Option(help="sockets opened at once", min=100)] = 100_000,
    few: Annotated[int, typer.Option(help="sockets opened at once against 256 descriptors", min=100)] = 10_000,
    folder: Annotated[Path, typer.Option(help="where the store's data goes for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure who is answered, how late, with what memory; record it and draw it."""
    cases = [
        Case("our front door", True, sockets),
        Case("plain uvicorn", False, sockets),
        Case(f"our front door, {FEW_DESCRIPTORS} descriptors", True, few, FEW_DESCRIPTORS),
        Case(
            f"our front door, {FEW_DESCRIPTORS} descriptors, asyncio", True, few, FEW_DESCRIPTORS, without_uvloop=True
        ),
        Case(f"plain uvicorn, {FEW_DESCRIPTORS} descriptors", False, few, FEW_DESCRIPTORS),
    ]
    with one_line_errors():
        place = Place.here("experiments.bench.at_once", folder)
        seen: dict[Case, list[Outcome]] = {case: [] for case in cases}
        for _ in range(rounds):
            for case in cases:
                seen[case].append(_fire(case, folder))
                print(_told(case, seen[case][-1]))
        rows = [row for case in cases for row in _rows(case, seen[case])]
        notes: dict[str, float | str] = {f"answers in round 1, {case.name}": _counts(seen[case][0]) for case in cases}
        notes["clients waited, s"] = CLIENTS_WAIT_S
        _draw(RESULTS / "bench_at_once.png", {case: outcomes[0] for case, outcomes in seen.items()})
        Benchmark(place=place, rows=rows, notes=notes).record("at_once")


def _rows(case: Case, outcomes: list[Outcome]) -> list[Row]:
    what = f"{case.sockets:,} sockets at once, {case.name}"
    bounds = {"at_least": 100.0, "aim": 100.0} if case.is_ours else {}
    answered = [one.answered_percent for one in outcomes]
    rows = [Row(what=f"{what}: answered 202 and in the store", unit="%", ours=answered, **bounds)]
    slowest = [one.slowest_s for one in outcomes]
    rows.append(Row(what=f"{what}: the last 202 after", unit="s", ours=slowest, less_is_better=True))
    if case.is_ours and case.descriptors is None:
        api = [one.peak_mb["api"] for one in outcomes]
        together = [sum(one.peak_mb.values()) for one in outcomes]
        kind = "memory in that run (peak PSS), "
        rows.append(Row(what=f"{kind}API", unit="MB", ours=api, at_least=128, aim=100, less_is_better=True))
        together_row = f"{kind}API + worker + gateway + Redis"
        rows.append(Row(what=together_row, unit="MB", ours=together, at_least=512, aim=350, less_is_better=True))
    elif case.descriptors is None:
        api = [one.peak_mb["api"] for one in outcomes]
        rows.append(Row(what="memory in that run (peak PSS), plain uvicorn", unit="MB", ours=api, less_is_better=True))
    return rows


def _fire(case: Case, parent: Path) -> Outcome:
    """One run on a store of its own, with a worker beside it."""
    with folder_in(parent) as folder, ExitStack() as stack:
        doing = stack.enter_context(worker(folder, WORKER_PROCESSING_DELAY=0.0004))
        until((folder / "data" / "state.json").exists, within_s=20)  # the store is not part of what is compared
        url, api = stack.enter_context(_served(case, folder))
        processes = {"api": api, "worker": doing.pid or 0, **store_processes(folder)}
        peak_mb = stack.enter_context(_memory_watched(processes))
        plan = LoadPlan(url, requests=case.sockets, shape=Shape.AT_ONCE, timeout_s=CLIENTS_WAIT_S)
        load = asyncio.run(run_load(plan))
        return Outcome(load, dict(peak_mb), _found(folder, set(load.accepted_ids)))


@contextmanager
def _served(case: Case, folder: Path) -> Iterator[tuple[str, int]]:
    """The server of a case; yields its URL and process id."""
    if case.without_uvloop:
        (folder / "uvloop.py").write_text("raise ImportError('not in this run')\n")
    with ExitStack() as stack:
        with descriptor_limit(case.descriptors):
            if case.is_ours:
                served = stack.enter_context(our_api(folder, PYTHONPATH=folder))
            else:
                served = stack.enter_context(uvicorn(APP, folder))
        yield served


@contextmanager
def _memory_watched(processes: dict[str, int]) -> Iterator[dict[str, float]]:
    """While entered: the largest PSS seen of each process, MB."""
    peak: dict[str, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_EVERY_S):
            for name, pid in processes.items():
                size = psutil.Process(pid).memory_full_info().pss / MEGABYTE
                peak[name] = max(peak.get(name, 0.0), round(size, 1))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _found(folder: Path, job_ids: set[str]) -> int:
    """How many of some jobs the store knows."""
    names = [f"job:{job_id}" for job_id in job_ids]
    pages = [names[start : start + LOOKED_UP_AT_ONCE] for start in range(0, len(names), LOOKED_UP_AT_ONCE)]
    found = sum(int(command(folder, "EXISTS", *page)) for page in pages)
    if found > len(job_ids):
        raise OverloadDemoError("the store knows more jobs than were asked for")
    return found


def _told(case: Case, outcome: Outcome) -> str:
    memory = ", ".join(f"{name} {size:.0f}" for name, size in outcome.peak_mb.items())
    return f"{case.name}: {_counts(outcome)}; last 202 after {outcome.slowest_s:.1f} s; MB: {memory}"


def _counts(outcome: Outcome) -> str:
    summary = outcome.load.summary()
    named = {"202": summary.accepted, **summary.failures}
    return ", ".join(f"{count:,} {name}" for name, count in named.items())


def _draw(path: Path, outcomes: dict[Case, Outcome]) -> None:
    """Left: who had an answer by when. Right: what came of everybody."""
    with drawing(1, 2, height=5.5, width=16, width_ratios=(1.1, 1)) as (drawn, (course, fate)):
        _draw_course(course, outcomes)
        _draw_fate(fate, outcomes)
        drawn.savefig(path, dpi=100)


def _draw_course(axes: Axes, outcomes: dict[Case, Outcome]) -> None:
    for case, outcome in outcomes.items():
        if case.descriptors is None:
            done_s = np.sort(outcome.load.done_s[outcome.load.accepted])
            shares = np.arange(1, done_s.size + 1) / outcome.load.kind.size * 100
            axes.plot(done_s, shares, label=case.name, **(QUEUE if case.is_ours else NAIVE))
    sockets = max(case.sockets for case in outcomes)
    axes.set(
        xlabel="seconds since the first socket was opened", ylabel="answered 202, %", xlim=(0, None), ylim=(0, 104)
    )
    axes.set_title(f"{sockets:,} sockets opened at once, one API process", loc="left")
    axes.legend(loc="lower right")


def _draw_fate(axes: Axes, outcomes: dict[Case, Outcome]) -> None:
    colours = {"accepted": BLUE, "reset": ORANGE, "timed out": YELLOW, "other": GREY}
    names = [f"{case.name.replace(', ', chr(10), 1)}\n{case.sockets:,} sockets" for case in outcomes]
    left = np.zeros(len(names))
    for fate, colour in colours.items():
        widths = np.array([_share(outcome, fate) for outcome in outcomes.values()])
        axes.barh(names, widths, left=left, color=colour, label="202" if fate == "accepted" else fate)
        left += widths
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", labelsize=12)
    axes.set(xlabel="% of the sockets", xlim=(0, 100))
    axes.set_title("What came of everybody", loc="left")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.15), ncols=4)


def _share(outcome: Outcome, fate: str) -> float:
    summary = outcome.load.summary()
    timed_out = summary.connect_timeout + summary.read_timeout
    reset = summary.reset + summary.disconnected
    counts = {"accepted": summary.accepted, "reset": reset, "timed out": timed_out}
    counts["other"] = summary.planned - sum(counts.values())
    return 100 * counts[fate] / summary.planned


if __name__ == "__main__":
    typer.run(main)
