"""The table of every recorded run: what it is, when and where it was made, and the command that makes it again."""

import ast
import importlib.util
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.bench.peers.comparison import ACCEPTED, Comparison
from experiments.bench.record import RESULTS, Benchmark, Place, markdown_table
from experiments.course import TellingFigure
from experiments.fault_matrix import FaultMatrix
from experiments.gradings import Gradings
from experiments.live_class import LiveClass
from experiments.student_cost import StudentCost
from overload_demo.errors import OverloadDemoError
from overload_demo.lab import about
from overload_demo.lab.result import BaselineRecording, SpikeResult
from overload_demo.load import Shape
from overload_demo.load.machine import Environment

SHOWN_ROWS = 2


@dataclass(frozen=True)
class Recording:
    """One file of ``experiments/results``; ``commands`` make it again, in this order."""

    path: Path
    what: str
    recorded_at: str
    machine: str
    commands: tuple[str, ...]
    headline: str

    @property
    def row(self) -> tuple[str, ...]:
        """The cells of the table; the file is a link, followed by its figure if there is one."""
        links = f"[`{self.path.name}`](results/{self.path.name})"
        if self.path.with_suffix(".png").exists():
            links += f", [figure](results/{self.path.stem}.png)"
        commands = ", then ".join(f"`{command}`" for command in self.commands)
        return self.what, links, self.recorded_at[:10], self.machine, commands, self.headline


def all_recordings(folder: Path = RESULTS) -> list[Recording]:
    """Return every recorded run, by file name. Raises :class:`OverloadDemoError` for a file without a reader."""
    return [_reader(path)(path) for path in sorted(folder.glob("*.json"))]


def recordings_block() -> str:
    """Return all recordings as a table."""
    heads = ("what", "file", "recorded", "machine", "made by", "in short")
    return markdown_table(heads, [one.row for one in all_recordings()])


def program_of(command: str) -> str:
    """Return the module that ``python -m …`` in a command runs, e.g. ``tests.history.__main__`` for a package.

    Raises :class:`OverloadDemoError` when there is none.
    """
    module = command.split()[2]
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise OverloadDemoError(f"there is no program for: {command}")
    return f"{module}.__main__" if spec.submodule_search_locations else module


def _reader(path: Path) -> Callable[[Path], Recording]:
    for pattern, reader in _READERS.items():
        if path.match(pattern):
            return reader
    raise OverloadDemoError(f"{path.name}: add a reader for it to experiments/readme/recordings.py")


def _benchmark(path: Path) -> Recording:
    benchmark = Benchmark.model_validate_json(path.read_bytes())
    shown = [row for row in benchmark.rows if row.at_least is not None] or benchmark.rows
    return _at(benchmark.place, path, "; ".join(f"{row.what}: {row.shown}" for row in shown[:SHOWN_ROWS]))


def _peers(path: Path) -> Recording:
    comparison = Comparison.read(path.parent)
    fastest = list(comparison.rates(ACCEPTED[0]).items())[:3]
    rates = ", ".join(f"{name} {about(statistics.median(measured))}" for name, measured in fastest)
    newest = _at(comparison.parts[-1].place, path, f"{ACCEPTED[0]}, the three fastest: {rates}")
    return replace(newest, commands=tuple(part.place.command for part in comparison.parts))


def _faults(path: Path) -> Recording:
    matrix = FaultMatrix.model_validate_json(path.read_bytes())
    holding = sum(not row.wrong and not row.not_here for row in matrix.rows)
    whole = _at(matrix.place, path, f"{holding} of {len(matrix.rows)} kinds of fault lose no more than promised")
    return replace(whole, commands=tuple(place.command for place in matrix.places))


def _student(path: Path) -> Recording:
    cost = StudentCost.model_validate_json(path.read_bytes())
    used = f"{cost.peak_mb:,.0f} MB at most, {cost.cpu_s:,.0f} CPU seconds"
    return _at(cost.place, path, f"`{cost.notebook}` at level {cost.level}: {used}")


def _telling(path: Path) -> Recording:
    figure = TellingFigure.model_validate_json(path.read_bytes())
    what = f"The telling figure of notebook {figure.title}, level `{figure.level}`"
    return replace(_at(figure.place, path, figure.alt.partition(". ")[0]), what=what)


def _class(path: Path) -> Recording:
    seen = LiveClass.model_validate_json(path.read_bytes())
    return _at(seen.place, path, f"{len(seen.steps)} acts; {seen.steps[-2].result}")


def _naive(path: Path) -> Recording:
    recording = BaselineRecording.model_validate_json(path.read_bytes())
    spike = next(run for run in recording.runs if run.shape is Shape.SPIKE)
    return Recording(
        path,
        f"The naive API, variant `{spike.variant}`, under {len(recording.runs)} loads",
        spike.recorded_at,
        _machine(spike.summary.environment, "file system not recorded"),
        (recording.command,),
        f"spike: {spike.summary.accepted:,} of {spike.summary.planned:,} answered in time",
    )


def _spike(path: Path) -> Recording:
    result = SpikeResult.read(path)
    return Recording(
        path,
        "The main job: a spike taken by the queue API, beside the naive one",
        result.recorded_at,
        _machine(result.load.environment, result.conditions.filesystem),
        (result.conditions.command, "python -m experiments.record_spike RUN_FOLDER"),
        f"{result.accepted:,} of {result.offered:,} accepted, {result.lost_text}, "
        f"{result.duplicated:,} duplicated, empty after {result.seconds_to_empty:,.0f} s",
    )


def _far_spike(path: Path) -> Recording:
    """Read the main job far from its store; its command records it too."""
    near, result = _spike(path), SpikeResult.read(path)
    times, commands, command = result.load.response_time, result.upstash_commands, result.conditions.command
    assert times
    assert commands
    answered = f"answered after {times.p50_s * 1000:,.0f} ms (p50); {commands[0]:,} or {commands[1]:,} commands"
    return replace(near, what=_subject(command), commands=(command,), headline=f"{near.headline}; {answered}")


def _subject(command: str) -> str:
    """Return what a program measures: the start of its docstring, before its own command."""
    spec = importlib.util.find_spec(program_of(command))
    assert spec
    assert spec.origin
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    return docstring.partition(": ``python -m")[0]


def _machine(environment: Environment, filesystem: str) -> str:
    return f"{environment.cores} cores, {filesystem}, Python {environment.python}"


def _at(place: Place, path: Path, headline: str) -> Recording:
    """Make a recording that contains its place; the docstring of its program describes it."""
    return Recording(path, _subject(place.command), place.recorded_at, place.where, (place.command,), headline)


def _gradings(path: Path) -> Recording:
    found = Gradings.model_validate_json(path.read_bytes())
    wrong = f"{len(found.false)} false verdicts in {found.right} right and {found.broken} broken files"
    return _at(found.place, path, f"{wrong}, beside {found.busy_loops} busy loops; slowest {max(found.seconds):.0f} s")


_READERS: dict[str, Callable[[Path], Recording]] = {
    "bench_peers.json": _peers,
    "bench_*.json": _benchmark,
    "fault_matrix.json": _faults,
    "gradings.json": _gradings,
    "live_class.json": _class,
    "naive_*.json": _naive,
    "notebook_*.json": _telling,
    "spike.json": _spike,
    "spike_far.json": _far_spike,
    "student_cost.json": _student,
}
