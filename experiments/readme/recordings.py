"""The table of every recorded run: what it is, when and where it was made, and the command that makes it again."""

import ast
import importlib.util
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.bench.peers.comparison import ACCEPTED, Comparison
from experiments.bench.record import RESULTS, Benchmark, Place, Row, figure
from experiments.fault_matrix import FaultMatrix
from experiments.live_class import LiveClass
from experiments.student_cost import StudentCost
from overload_demo.errors import OverloadDemoError
from overload_demo.lab.baseline import BaselineRecording
from overload_demo.lab.result import SpikeResult
from overload_demo.load import Shape
from overload_demo.load.summary import Environment

NOT_RECORDED = "not recorded"
ROWS_TOLD = 2


@dataclass(frozen=True)
class Recording:
    """One file of ``experiments/results``; ``commands`` make it again, in this order."""

    path: Path
    what: str
    recorded_at: str
    environment: Environment
    filesystem: str
    commands: tuple[str, ...]
    headline: str


def all_recordings(folder: Path = RESULTS) -> list[Recording]:
    """Every recorded run, by file name. Raises :class:`OverloadDemoError` for a file that nobody here can read."""
    return [_reader(path)(path) for path in sorted(folder.glob("*.json"))]


def table(recordings: Iterable[Recording]) -> str:
    """A row a recording; file names link to the files, with the figure beside where there is one."""
    lines = ["| what | file | recorded | machine | made by | in short |", "|---|---|---|---|---|---|"]
    for one in recordings:
        environment = one.environment
        machine = f"{environment.cores} cores, {one.filesystem}, Python {environment.python}"
        made_by = ", then ".join(f"`{command}`" for command in one.commands)
        cells = (one.what, _links(one.path), one.recorded_at[:10], machine, made_by, one.headline)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def program_of(command: str) -> str:
    """The module that ``python -m …`` in a command runs, e.g. ``tests.history.__main__`` for a package.

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
    raise OverloadDemoError(f"{path.name}: add to experiments/readme/recordings.py how such a recording is told")


def _benchmark(path: Path) -> Recording:
    benchmark = Benchmark.model_validate_json(path.read_bytes())
    told = [row for row in benchmark.rows if row.at_least is not None] or benchmark.rows
    return _at(benchmark.place, path, "; ".join(f"{row.what}: {row.shown}" for row in told[:ROWS_TOLD]))


def _growth(path: Path) -> Recording:
    benchmark = Benchmark.model_validate_json(path.read_bytes())
    by_name: dict[str, list[Row]] = {}
    for row in benchmark.rows:
        by_name.setdefault(row.what.rpartition(", ")[0], []).append(row)
    told = []
    for name, rows in list(by_name.items())[:ROWS_TOLD]:
        queued = [row for row in rows if row.what.endswith("queued")]
        ends = [f"{figure(row.value)} with {row.what.rpartition(', ')[2]}" for row in (queued[0], queued[-1])]
        told.append(f"{name}: {', '.join(ends)}")
    return _at(benchmark.place, path, "; ".join(told))


def _peers(path: Path) -> Recording:
    comparison = Comparison.model_validate_json(path.read_bytes())
    (first, ours), (second, theirs) = list(comparison.rates(ACCEPTED).items())[:2]
    told = f"{ACCEPTED}, the two fastest: {first} {figure(statistics.median(ours))}, {second} {figure(statistics.median(theirs))}"
    return _at(comparison.place, path, told)


def _faults(path: Path) -> Recording:
    matrix = FaultMatrix.model_validate_json(path.read_bytes())
    holding = sum(not row.wrong and not row.not_here for row in matrix.rows)
    return _at(matrix.place, path, f"{holding} of {len(matrix.rows)} kinds of fault lose no more than promised")


def _student(path: Path) -> Recording:
    cost = StudentCost.model_validate_json(path.read_bytes())
    told = f"`{cost.notebook}` at level {cost.level}: {cost.peak_mb:,.0f} MB at most, {cost.cpu_s:,.0f} CPU seconds"
    return _at(cost.place, path, told)


def _class(path: Path) -> Recording:
    seen = LiveClass.model_validate_json(path.read_bytes())
    return _at(seen.place, path, f"{len(seen.steps)} acts; {seen.steps[-2].result}")


def _naive(path: Path) -> Recording:
    recording = BaselineRecording.model_validate_json(path.read_bytes())
    runs = recording.runs
    spike = next(run for run in runs if run.shape is Shape.SPIKE)
    return Recording(
        path=path,
        what=f"The naive API, variant `{spike.variant}`, under {len(runs)} loads",
        recorded_at=spike.recorded_at,
        environment=spike.summary.environment,
        filesystem=f"file system {NOT_RECORDED}",
        commands=(recording.command,),
        headline=f"spike: {spike.summary.accepted:,} of {spike.summary.planned:,} answered in time",
    )


def _spike(path: Path) -> Recording:
    result = SpikeResult.read(path)
    return Recording(
        path=path,
        what="The main job: a spike taken by the queue API, beside the naive one",
        recorded_at=result.recorded_at,
        environment=result.load.environment,
        filesystem=result.conditions.filesystem,
        commands=(result.conditions.command, "python -m experiments.record_spike RUN_FOLDER"),
        headline=f"{result.accepted:,} of {result.offered:,} accepted, {result.lost:,} lost, "
        f"{result.duplicated:,} duplicated, empty after {result.seconds_to_empty:,.0f} s",
    )


def _far_spike(path: Path) -> Recording:
    """The main job far from its store; its command records it too."""
    near, result = _spike(path), SpikeResult.read(path)
    times, scripts = result.load.response_time, result.upstash_commands
    assert times
    assert scripts
    told = (
        f"{near.headline}; answered after {times.p50_s * 1000:,.0f} ms (p50); {scripts[0]:,} or {scripts[1]:,} commands"
    )
    command = result.conditions.command
    return replace(near, what=_subject(command), commands=(command,), headline=told)


def _subject(command: str) -> str:
    """What a program measures: the first words of its docstring, before its own command."""
    spec = importlib.util.find_spec(program_of(command))
    assert spec
    assert spec.origin
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    return docstring.partition(": ``python -m")[0]


def _links(path: Path) -> str:
    figure_path = path.with_suffix(".png")
    links = f"[`{path.name}`](results/{path.name})"
    return f"{links}, [figure](results/{figure_path.name})" if figure_path.exists() else links


def _at(place: Place, path: Path, headline: str) -> Recording:
    """A recording that says itself where it was made; what it is says the program that made it."""
    return Recording(
        path=path,
        what=_subject(place.command),
        recorded_at=place.recorded_at,
        environment=place.environment,
        filesystem=place.filesystem,
        commands=(place.command,),
        headline=headline,
    )


_READERS: dict[str, Callable[[Path], Recording]] = {
    "bench_growth.json": _growth,
    "bench_peers.json": _peers,
    "bench_*.json": _benchmark,
    "fault_matrix.json": _faults,
    "live_class.json": _class,
    "naive_*.json": _naive,
    "spike.json": _spike,
    "spike_far.json": _far_spike,
    "student_cost.json": _student,
}
