"""The record of the fault matrix, and its table in the README. ``python -m tests.history`` makes it."""

import statistics

from pydantic import BaseModel

from experiments.bench.record import RESULTS, Place

FILE = RESULTS / "fault_matrix.json"


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
