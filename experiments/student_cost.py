"""What one student takes of a machine: ``python -m experiments.student_cost``.

Runs a notebook from an empty kernel, as ``overload-demo check`` does, and looks at every process below it several times
a second: kernel, API, worker, store, load generator. JupyterLab's own server is started once more by itself, idle.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import psutil
import typer
from pydantic import BaseModel, ConfigDict

from experiments.bench.record import RESULTS, Place
from experiments.bench.servers import free_port, wait_for
from overload_demo.console import one_line_errors
from overload_demo.course.level import Level
from overload_demo.errors import OverloadDemoError

FILE = RESULTS / "student_cost.json"
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "04_spike.ipynb"
LOOK_EVERY_S = 0.25
MEGABYTE = 1_000_000
# What a process is, by a word of its command line; the first that fits.
PARTS = {
    "overload_demo.load": "load generator",
    "experiments.naive_sync": "naive API",
    "ipykernel": "kernel",
    "overload_demo.api": "API",
    "overload_demo.worker": "worker",
    "overload_demo.store": "gateway",
    "redis-server": "Redis",
    "valkey-server": "Redis",
}
RUNNER = "check command"


class StudentCost(BaseModel):
    """What one notebook took at one level.

    ``cpu_s`` is processor time of all processes together, ``peak_mb`` the most memory they had at the same moment,
    ``peak_by_part_mb`` the most each part had at any; proportional set size where ``memory_kind`` says pss, MB of
    10^6 bytes. ``jupyterlab_mb`` is JupyterLab's server with nothing open, which is in none of the others.
    """

    model_config = ConfigDict(frozen=True)

    place: Place
    notebook: str
    level: Level
    seconds: float
    cpu_s: float
    peak_mb: float
    peak_by_part_mb: dict[str, float]
    jupyterlab_mb: float
    memory_kind: str

    @classmethod
    def recorded(cls) -> "StudentCost":
        """The recorded run."""
        return cls.model_validate_json(FILE.read_bytes())


def main(
    notebook: Annotated[
        Path, typer.Option(help="the notebook", show_default="notebooks/04_spike.ipynb", exists=True, dir_okay=False)
    ] = NOTEBOOK,
    level: Annotated[Level, typer.Option(help="how heavy its load is")] = Level.QUICK,
    folder: Annotated[Path, typer.Option(help="where its runs go for the while; not on tmpfs")] = Path(),
    output: Annotated[Path, typer.Option(help="the file to write", show_default="the recorded one")] = FILE,
) -> None:
    """Run a notebook, watch what it takes, and record it."""
    with one_line_errors(), tempfile.TemporaryDirectory(dir=folder, prefix="student-") as temporary:
        place, watch = Place.here("experiments.student_cost", Path(temporary)), Watch()
        seconds = _run(notebook, level, Path(temporary), watch)
        cost = StudentCost(
            place=place,
            notebook=notebook.name,
            level=level,
            seconds=round(seconds, 1),
            cpu_s=round(watch.cpu_s, 1),
            peak_mb=round(watch.peak_mb, 1),
            peak_by_part_mb={name: round(size, 1) for name, size in watch.peak_by_part_mb.items()},
            jupyterlab_mb=round(_jupyterlab_mb(Path(temporary)), 1),
            memory_kind=watch.memory_kind,
        )
        output.write_text(cost.model_dump_json(indent=1) + "\n")
        print(told(cost))
        print(f"written: {output}")


def told(cost: StudentCost) -> str:
    """The recorded run in a table, for the course guide."""
    parts = ", ".join(f"{name} {size:,.0f}" for name, size in sorted(cost.peak_by_part_mb.items()))
    environment = cost.place.environment
    rows = [
        ("by the clock", f"{cost.seconds:,.0f} s"),
        ("processor time", f"{cost.cpu_s:,.0f} s, on average {cost.cpu_s / cost.seconds:.1f} cores"),
        ("most memory at one moment", f"{cost.peak_mb:,.0f} MB"),
        ("most memory of each part", f"{parts} MB"),
        ("JupyterLab's server besides, idle", f"{cost.jupyterlab_mb:,.0f} MB"),
    ]
    lines = [f"| `{cost.notebook}` at level `{cost.level}` | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    lines += [
        "",
        f"`{cost.place.command}`, recorded {cost.place.recorded_at[:10]}; memory is {cost.memory_kind.upper()}; "
        f"{environment.cores} cores ({environment.processor}), Python {environment.python}, {cost.place.filesystem}.",
    ]
    return "\n".join(lines)


class Watch:
    """What a tree of processes has taken so far; a process counts with what it had at the last look at it."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self.peak_by_part_mb: dict[str, float] = {}
        self.memory_kind = "pss" if hasattr(psutil.Process().memory_full_info(), "pss") else "rss"
        self._cpu_s: dict[psutil.Process, float] = {}  # equal only for the same process, also when its id is used again

    @property
    def cpu_s(self) -> float:
        """Processor time of every process seen so far, also of those that have ended."""
        return sum(self._cpu_s.values())

    def look(self, root: psutil.Process) -> None:
        """Add up what the tree holds at this moment."""
        now_mb: dict[str, float] = defaultdict(float)
        for process in _tree(root):
            with contextlib.suppress(psutil.Error):  # it may end while we look
                times = process.cpu_times()
                self._cpu_s[process] = times.user + times.system
                size = getattr(process.memory_full_info(), self.memory_kind)
                now_mb[_part(process.cmdline())] += size / MEGABYTE
        self.peak_mb = max(self.peak_mb, sum(now_mb.values()))
        for name, size in now_mb.items():
            self.peak_by_part_mb[name] = max(self.peak_by_part_mb.get(name, 0.0), size)


def _tree(root: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [root, *root.children(recursive=True)]
    return []


def _part(command_line: Sequence[str]) -> str:
    line = " ".join(command_line)
    return next((name for word, name in PARTS.items() if word in line), RUNNER)


def _run(notebook: Path, level: Level, folder: Path, watch: Watch) -> float:
    """Run a copy in ``folder``, watched; seconds it took. Raises :class:`OverloadDemoError` when a cell failed."""
    findings, log = folder / "findings.json", folder / "check.log"
    copy = shutil.copy(notebook, folder)
    command = ("-m", "overload_demo", "check", "--level", level, "--json", str(findings), copy)
    since = time.perf_counter()
    with log.open("w") as said, psutil.Popen([sys.executable, *command], stdout=said, stderr=said) as process:
        while process.poll() is None:
            watch.look(process)
            time.sleep(LOOK_EVERY_S)
    seconds = time.perf_counter() - since
    if not findings.exists():
        said = log.read_text().strip().splitlines() or ["it said nothing"]
        raise OverloadDemoError(f"the notebook did not run: {said[-1]}")
    failed = [one["status"] for one in json.loads(findings.read_text()) if one["item"] == "a cell"]
    if failed:
        raise OverloadDemoError(f"a cell failed: {failed[0]}")
    return seconds


def _jupyterlab_mb(folder: Path) -> float:
    """The memory of JupyterLab's server as it starts, with no notebook open."""
    port, watch = free_port(), Watch()
    arguments = ("--no-browser", f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}")
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", *arguments]
    quiet = subprocess.DEVNULL
    with psutil.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}")
            watch.look(server)
        finally:
            server.terminate()
    return watch.peak_mb


if __name__ == "__main__":
    typer.run(main)
