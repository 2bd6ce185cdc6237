"""What the comparison leaves behind: a row a peer and measurement, and what each peer is."""

import shlex
import statistics
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from experiments.bench.peers.libraries import OURS, Library
from experiments.bench.record import Benchmark, Place

ACCEPTED, DONE = "accepted/s", "done/s"


class Recorded(BaseModel):
    """A library as it was measured; ``jobs`` is the length of a drain by worker."""

    model_config = ConfigDict(frozen=True)

    about: Library
    versions: dict[str, str]
    jobs: dict[str, int]


class Comparison(Benchmark):
    """Rows named by peer, one at least for each unit; :data:`ACCEPTED` and :data:`DONE` are what was measured."""

    contestants: list[Recorded]

    def rates(self, unit: str) -> dict[str, list[float]]:
        """What was measured in a unit, by name, ours included; the fastest first."""
        rows = [row for row in self.rows if row.unit == unit]
        found = {OURS.name: rows[0].ours} | {row.what: row.theirs for row in rows}
        return dict(sorted(found.items(), key=lambda one: -statistics.median(one[1])))

    def show(self, console: Console) -> None:
        """Print the rows, and what becomes of a job whose worker is killed."""
        super().show(console)
        table = Table(show_edge=False)
        for heading in ("library", "endpoint", "at once", "a job whose worker is killed", "result kept"):
            table.add_column(heading)
        for one in self.contestants:
            versions = ", ".join(f"{name} {version}" for name, version in one.versions.items())
            library = one.about
            at_once = library.workers[0].at_once
            table.add_row(f"{library.name}\n({versions})", library.endpoint, at_once, library.killed, library.result)
        console.print(table)


def without_paths(place: Place) -> Place:
    """The place with the names of paths in its command only: where they lie is nobody's but this machine's."""
    words = (Path(word).name if "/" in word else word for word in shlex.split(place.command))
    return place.model_copy(update={"command": shlex.join(words)})
