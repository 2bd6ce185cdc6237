"""The record of the fault matrix, and its table in the README. ``python -m tests.history`` makes it."""

import statistics

from pydantic import BaseModel

from experiments.bench.record import RESULTS, Place

FILE = RESULTS / "fault_matrix.json"
NOTE = (
    "*Exposed*: jobs accepted and not done while the fault happened; a row without any fails. Not accepted: "
    "refused, or cut off before an answer. *Done again*: jobs whose effect happened more than once, each after a fault "
    "that explains it. *Recovery*: from a kill to the next start of "
    "a job (F2, F3), else to the next 202 for a request sent after it. The test starts a worker or an API again, as a "
    "supervisor would; the store starts again by itself."
)


class RowResult(BaseModel):
    """What one row did and found; counts of jobs, times in seconds.

    ``fired``: how often the fault happened; ``exposed``: jobs that were acknowledged and unfinished during at least one
    of them. ``wrong`` is what the row fails for, ``allowed`` the violations it may cause, ``not_here`` why this machine
    could not do it. ``recovery_s``: from each fault to the first sign that it was over. ``longest_loss_s``: how long
    before the store died the oldest job had been accepted that it had forgotten.
    """

    name: str
    what: str
    how: str
    seed: int
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
    allowed: dict[str, int] = {}
    wrong: str = ""
    not_here: str = ""
    note: str = ""
    seconds: float = 0.0

    @property
    def recovery(self) -> str:
        """Median and longest, as text."""
        if not self.recovery_s:
            return ""
        return f"{statistics.median(self.recovery_s):.2g} / {max(self.recovery_s):.2g} s"

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.not_here:
            return f"not possible here: {self.not_here}"
        return f"**fails**: {self.wrong}" if self.wrong else "holds"

    def told(self) -> str:
        """All of it in a line."""
        counts = f"fired {self.fired}, exposed {self.exposed}, accepted {self.accepted} of {self.attempted}"
        outcome = f"lost {self.lost}, duplicated {self.duplicated}, recovery {self.recovery or '-'}"
        window = f"forgot up to {self.longest_loss_s:.2f} s" if self.longest_loss_s else ""
        told = "; ".join(filter(None, [counts, outcome, window, str(self.allowed or ""), self.note, self.verdict]))
        return f"{self.name} (seed {self.seed}, {self.seconds:.0f} s) {self.what}: {told}"


class FaultMatrix(BaseModel):
    """All rows of one run."""

    place: Place
    rows: list[RowResult]

    @classmethod
    def recorded(cls) -> "FaultMatrix":
        """The recorded run."""
        return cls.model_validate_json(FILE.read_text())

    def record(self) -> None:
        """Keep it as the recorded run."""
        FILE.write_text(self.model_dump_json(indent=1) + "\n")

    def row(self, name: str) -> RowResult:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


def faults_block(matrix: FaultMatrix) -> str:
    """README: every row in a table."""
    lines = [
        "| | fault | by | times | exposed | accepted | lost | done again | recovery, median / longest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in matrix.rows:
        if row.not_here:
            lines.append(f"| {row.name} | {row.what} | {row.how} | not possible: {row.not_here} | | | | | |")
            continue
        lost = f"{row.lost:,}" + (f", up to {row.longest_loss_s:.2f} s of acceptances" if row.lost else "")
        lost += f" ({row.note})" if row.note else ""
        name = row.name if not row.wrong else f"**{row.name} fails: {row.wrong}**"
        counts = (
            f"{row.fired:,} | {row.exposed:,} | {row.accepted:,} of {row.attempted:,} | {lost} | {row.duplicated:,}"
        )
        lines.append(f"| {name} | {row.what} | {row.how} | {counts} | {row.recovery} |")
    place = matrix.place
    lines += [
        "",
        f"`{place.command}`, recorded {place.recorded_at[:10]} in {sum(row.seconds for row in matrix.rows) / 60:.0f} "
        f"minutes; {place.environment.cores} cores, {place.filesystem}. {NOTE}",
    ]
    return "\n".join(lines)


UNDETECTED = (
    "Damage in the append-only file of the embedded store: an incomplete command or transaction at the end is dropped, "
    "with a line on the terminal and a copy beside it. Damage with commands behind it stops the start; "
    "`python -m overload_demo.store --repair` drops the damaged commands only and says how many bytes. A snapshot "
    "(`*.base.rdb`) has a CRC and is refused when it is damaged; it cannot be repaired. Not detected: a flipped bit "
    "inside a key or a value, since the file has no checksums, and acknowledged commands at the very end that zeros or "
    "a cut have taken."
)


def durability_block(matrix: FaultMatrix) -> str:
    """README: what an acknowledged job survives, by level, with what was measured."""

    def measured(name: str) -> str:
        row = matrix.row(name)
        if not row.lost:
            return f"lost 0 of {row.accepted:,} in {row.fired} times ({name})"
        window = f"up to {row.longest_loss_s:.2f} s of acceptances"
        return f"lost {row.lost:,} of {row.accepted:,} in {row.fired} times, {window} ({name})"

    promised = "promises durable storage; replicas follow asynchronously, so a failover may forget acknowledged writes"
    rows = [
        (
            "embedded, `always` (default)",
            "`kill -9` of anything, power loss",
            measured("F5a"),
            measured("F6a"),
            measured("F7a"),
        ),
        (
            "embedded, `OVERLOAD_DURABILITY=everysec`",
            "a kill while the disk keeps up; about a second is lost with the power, more on a slow disk",
            *(measured(name) for name in ("F5b", "F6b", "F7b")),
        ),
        ("`OVERLOAD_REDIS_URL`", "what that server keeps; told at start and in `/health` as `durability`", "", "", ""),
        (
            "Upstash, `durability: unknown`",
            promised,
            "not ours to kill",
            "",
            f"a failover to a lagging replica, two servers here: {measured('F20')}",
        ),
    ]
    lines = [
        "| store | an acknowledged job survives | `kill -9` of Redis | in a slow fsync | power loss |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", UNDETECTED])
