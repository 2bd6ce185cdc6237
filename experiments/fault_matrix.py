"""The record of the fault matrix, and its tables in the documents. ``python -m tests.history`` makes it."""

import statistics
from collections.abc import Iterable

from pydantic import BaseModel

from experiments.bench.record import RESULTS, Place, markdown_table

FILE = RESULTS / "fault_matrix.json"


class RowResult(BaseModel):
    """The result of one row, or the sum of several ``runs``; counts of jobs, times in seconds.

    ``place``: of a row recorded later than the rest of the matrix. ``fired``: number of faults. ``exposed``: jobs
    acknowledged and unfinished during at least one of them. ``wrong``: why the row fails. ``allowed``: the violations
    that it may cause. ``not_here``: why this machine cannot run it. ``recovery_s``: from each fault to the first sign
    of recovery. ``longest_loss_s``: age of the oldest lost job when the store died. ``longest_gap_s``: longest time
    without an acceptance; ``longest_keyed_gap_s`` that of posts with an Idempotency-Key, in one shard.
    """

    name: str
    what: str
    how: str
    seed: int
    place: Place | None = None
    runs: int = 1
    fired: int = 0
    exposed: int = 0
    attempted: int = 0
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    lost: int = 0
    duplicated: int = 0
    recovery_s: list[float] = []
    longest_loss_s: float = 0.0
    longest_gap_s: float = 0.0
    longest_keyed_gap_s: float = 0.0
    allowed: dict[str, int] = {}
    wrong: str = ""
    not_here: str = ""
    note: str = ""
    seconds: float = 0.0

    @property
    def times(self) -> str:
        """Number of faults as text, with the number of runs if there are several."""
        return f"{self.fired:,}" + (f" in {self.runs} runs" if self.runs > 1 else "")

    @property
    def gaps(self) -> str:
        """Longest gap in acceptance as text: of posts without a key, and of posts with one."""
        return f"{self.longest_gap_s:.2f} / {self.longest_keyed_gap_s:.2f} s" if self.longest_gap_s else ""

    @property
    def recovery(self) -> str:
        """Median and longest recovery as text."""
        if not self.recovery_s:
            return ""
        return f"{statistics.median(self.recovery_s):.2g} / {max(self.recovery_s):.2g} s"

    def describe(self) -> str:
        """Return the result as one line."""
        counts = f"fired {self.times}, exposed {self.exposed}, accepted {self.accepted} of {self.attempted}"
        outcome = f"lost {self.lost}, duplicated {self.duplicated}, recovery {self.recovery or '-'}"
        window = f"lost up to {self.longest_loss_s:.2f} s" if self.longest_loss_s else ""
        gaps = f"longest gap in acceptance, without / with a key: {self.gaps}" if self.gaps else ""
        verdict = f"not possible here: {self.not_here}" if self.not_here else self.wrong or "holds"
        facts = "; ".join(filter(None, [counts, outcome, window, gaps, str(self.allowed or ""), self.note, verdict]))
        return f"{self.name} (seed {self.seed}, {self.seconds:.0f} s) {self.what}: {facts}"


class FaultMatrix(BaseModel):
    """All rows of one run, some of them replaced by later runs."""

    place: Place
    rows: list[RowResult]

    @classmethod
    def recorded(cls) -> "FaultMatrix":
        """Read the recorded run."""
        return cls.model_validate_json(FILE.read_text())

    def with_rows(self, newer: Iterable[RowResult], order: Iterable[str]) -> "FaultMatrix":
        """Replace the rows of the same names, add those that are new, and put all into this order of names."""
        rows = {row.name: row for row in (*self.rows, *newer)}
        return self.model_copy(update={"rows": [rows[name] for name in order if name in rows]})

    def record(self) -> None:
        """Write this run as the recorded one."""
        FILE.write_text(self.model_dump_json(indent=1) + "\n")

    @property
    def places(self) -> list[Place]:
        """Where and when the matrix was recorded, then its later rows."""
        later = {row.place.recorded_at: row.place for row in self.rows if row.place}
        return [self.place, *later.values()]

    def row(self, name: str) -> RowResult:
        """Return the row of that name."""
        return next(row for row in self.rows if row.name == name)


def faults_block(matrix: FaultMatrix) -> str:
    """Return every row as a table."""
    rows = []
    for row in matrix.rows:
        if row.not_here:
            rows.append((row.name, row.what, row.how, f"not possible: {row.not_here}", *[""] * 6))
            continue
        lost = f"{row.lost:,}" + (f", up to {row.longest_loss_s:.2f} s of acceptances" if row.lost else "")
        lost += f" ({row.note})" if row.note else ""
        name = f"**{row.name} fails: {row.wrong}**" if row.wrong else row.name
        counts = (row.times, f"{row.exposed:,}", f"{row.accepted:,} of {row.attempted:,}")
        rows.append((name, row.what, row.how, *counts, lost, f"{row.duplicated:,}", row.recovery, row.gaps))
    heads = ("", "fault", "by", "times", "exposed", "accepted", "lost", "done again", "recovery, median / longest")
    table = markdown_table((*heads, "longest gap in acceptance, without / with a key"), rows)
    return "\n\n".join([table, *(_recorded(matrix, place) for place in matrix.places)])


def _recorded(matrix: FaultMatrix, place: Place) -> str:
    rows = [row for row in matrix.rows if (row.place or matrix.place) == place]
    names = "" if place == matrix.place else f"{', '.join(row.name for row in rows)}: "
    minutes = sum(row.seconds for row in rows) / 60
    return f"{names}{place.recorded} in {minutes:.0f} minutes; {place.where}."


def durability_block(matrix: FaultMatrix) -> str:
    """Return what an acknowledged job survives on each store, with what was measured."""

    def measured(name: str) -> str:
        row = matrix.row(name)
        window = f", up to {row.longest_loss_s:.2f} s of acceptances" if row.lost else ""
        return f"lost {row.lost:,} of {row.accepted:,} in {row.fired:,} times{window} ({name})"

    every_second = "a kill while the disk keeps up; a power loss loses about a second of jobs, more on a slow disk"
    upstash = "durable storage is promised; replication is asynchronous, so a failover may lose acknowledged writes"
    replicated = "what it survives alone, and the loss of a primary whose replica has confirmed the job and takes over"
    lagging = "failover to a lagging replica, two servers here:"
    rows = [
        ("embedded, `always` (default)", "`kill -9` of anything, power loss", *map(measured, ("F5a", "F6a", "F7a"))),
        ("embedded, `OVERLOAD_DURABILITY=everysec`", every_second, *map(measured, ("F5b", "F6b", "F7b"))),
        ("`OVERLOAD_REDIS_URL`", "what that server keeps; `durability` in `/health` shows it", "", "", ""),
        ("Upstash, `durability: unknown`", upstash, "not possible", "", f"{lagging} {measured('F20')}"),
        ("`OVERLOAD_MIN_REPLICAS=1`", replicated, measured("F28"), "", f"{lagging} {measured('F27')}"),
    ]
    heads = ("store", "an acknowledged job survives", "`kill -9` of Redis", "in a slow fsync", "power loss, failover")
    return markdown_table(heads, rows)
