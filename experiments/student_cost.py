"""Memory and CPU time of one student: ``python -m experiments.student_cost``.

Runs a notebook from an empty kernel with ``overload-demo check``, and samples every process below it several times a
second: Jupyter kernel, API, worker, store, load generator. JupyterLab's own server is measured separately, idle.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import psutil
import typer

from experiments.bench.record import RESULTS, Facts, Folder, Place, markdown_table
from experiments.bench.servers import free_port, wait_for
from overload_demo.console import one_line_errors
from overload_demo.course import Level
from overload_demo.errors import OverloadDemoError

FILE = RESULTS / "student_cost.json"
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "04_spike.ipynb"
SAMPLE_EVERY_S = 0.25
# The part that a process is, by a word of its command line; the first match counts.
PARTS = {
    "overload_demo.load": "load generator",
    "experiments.naive_sync": "naive API",
    "ipykernel": "Jupyter kernel",
    "overload_demo.api": "API",
    "overload_demo.worker": "worker",
    "overload_demo.store": "gateway",
    "redis-server": "Redis",
    "valkey-server": "Redis",
}


class StudentCost(Facts):
    """The resources of one notebook at one level.

    ``cpu_s``: CPU time of all processes. ``peak_mb``: their largest memory at one moment. ``peak_by_part_mb``: the
    largest memory of each part at any moment. Memory is proportional set size where ``memory_kind`` is pss, in MB of
    10^6 bytes. ``jupyterlab_mb``: JupyterLab's server with no notebook open, in none of the other numbers.
    """

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
        """Read the recorded run."""
        return cls.model_validate_json(FILE.read_bytes())


def main(
    notebook: Annotated[
        Path, typer.Option(help="the notebook", show_default="notebooks/04_spike.ipynb", exists=True, dir_okay=False)
    ] = NOTEBOOK,
    level: Annotated[Level, typer.Option(help="how heavy its load is")] = Level.QUICK,
    folder: Folder = Path(),
    output: Annotated[
        Path, typer.Option(help="the file to write", show_default="the recorded one", dir_okay=False)
    ] = FILE,
) -> None:
    """Run a notebook, measure its processes, and record the result."""
    with one_line_errors(), tempfile.TemporaryDirectory(dir=folder, prefix="student-") as temporary:
        output.parent.mkdir(parents=True, exist_ok=True)
        place, watch = Place.here("experiments.student_cost", Path(temporary)), Watch()
        cost = StudentCost(
            place=place,
            notebook=notebook.name,
            level=level,
            seconds=round(_run(notebook, level, Path(temporary), watch), 1),
            cpu_s=round(watch.cpu_s, 1),
            peak_mb=round(watch.peak_mb, 1),
            peak_by_part_mb={name: round(size, 1) for name, size in watch.peak_by_part_mb.items()},
            jupyterlab_mb=round(_jupyterlab_mb(Path(temporary)), 1),
            memory_kind=watch.memory_kind,
        )
        output.write_text(cost.model_dump_json(indent=1) + "\n")
        print(cost_block(cost))
        print(f"written: {output}")


def cost_block(cost: StudentCost) -> str:
    """Return the recorded run as a table for the course guide."""
    parts = ", ".join(f"{name} {size:,.0f}" for name, size in sorted(cost.peak_by_part_mb.items()))
    rows = [
        ("by the clock", f"{cost.seconds:,.0f} s"),
        ("processor time", f"{cost.cpu_s:,.0f} s, on average {cost.cpu_s / cost.seconds:.1f} cores"),
        ("most memory at one moment", f"{cost.peak_mb:,.0f} MB"),
        ("most memory of each part", f"{parts} MB"),
        ("JupyterLab's server besides, idle", f"{cost.jupyterlab_mb:,.0f} MB"),
    ]
    note = (
        f"{cost.place.recorded}; memory is {cost.memory_kind.upper()}; {cost.place.where}, "
        f"{cost.place.environment.processor}."
    )
    return f"{markdown_table((f'`{cost.notebook}` at level `{cost.level}`', ''), rows)}\n\n{note}"


class Watch:
    """The resources of a tree of processes so far; a process counts with its last sample."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self.peak_by_part_mb: dict[str, float] = {}
        self.memory_kind = "pss" if hasattr(psutil.Process().memory_full_info(), "pss") else "rss"
        self._cpu_s: dict[psutil.Process, float] = {}  # keys differ when a process id is used again

    @property
    def cpu_s(self) -> float:
        """CPU time of every process seen so far, ended ones included."""
        return sum(self._cpu_s.values())

    def look(self, root: psutil.Process) -> None:
        """Sample the tree."""
        now_mb: dict[str, float] = defaultdict(float)
        tree = [root]
        with contextlib.suppress(psutil.Error):
            tree += root.children(recursive=True)
        for process in tree:
            with contextlib.suppress(psutil.Error):  # the process may end meanwhile
                self._cpu_s[process] = sum(process.cpu_times()[:2])
                size = getattr(process.memory_full_info(), self.memory_kind)
                line = " ".join(process.cmdline())
                now_mb[next((name for word, name in PARTS.items() if word in line), "check command")] += size / 1e6
        self.peak_mb = max(self.peak_mb, sum(now_mb.values()))
        for name, size in now_mb.items():
            self.peak_by_part_mb[name] = max(self.peak_by_part_mb.get(name, 0.0), size)


def _run(notebook: Path, level: Level, folder: Path, watch: Watch) -> float:
    """Run a copy in ``folder`` and return the seconds. Raises :class:`OverloadDemoError` when a cell failed."""
    findings, log = folder / "findings.json", folder / "check.log"
    copy = shutil.copy(notebook, folder)
    command = ("-m", "overload_demo", "check", "--level", level, "--json", str(findings), copy)
    since = time.perf_counter()
    with log.open("w") as output, psutil.Popen([sys.executable, *command], stdout=output, stderr=output) as process:
        while process.poll() is None:
            watch.look(process)
            time.sleep(SAMPLE_EVERY_S)
    seconds = time.perf_counter() - since
    if not findings.exists():
        lines = log.read_text().strip().splitlines() or ["no output"]
        raise OverloadDemoError(f"the notebook did not run: {lines[-1]}")
    failed = [one["status"] for one in json.loads(findings.read_text()) if one["item"] == "a cell"]
    if failed:
        raise OverloadDemoError(f"a cell failed: {failed[0]}")
    return seconds


def _jupyterlab_mb(folder: Path) -> float:
    """Return the memory of JupyterLab's server after its start, with no notebook open."""
    port, watch = free_port(), Watch()
    arguments = ("--no-browser", f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}")
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", *arguments]
    quiet: dict[str, int] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with psutil.Popen(command, **quiet) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}")
            watch.look(server)
        finally:
            server.terminate()
    return watch.peak_mb


if __name__ == "__main__":
    typer.run(main)
