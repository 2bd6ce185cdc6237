"""The package with one promise broken, for a test of the checker: each mutant edits one file."""

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """Each ``old`` becomes its ``new`` in ``file``; ``shows_as`` are the violations that reveal it."""

    file: str
    edits: dict[str, str]
    shows_as: tuple[str, ...]

    def build(self, folder: Path) -> Path:
        """Copy the package with the edit into ``folder``; returns the folder for the Python path."""
        shutil.copytree(ROOT / "overload_demo", folder / "overload_demo", ignore=shutil.ignore_patterns("__pycache__"))
        edited = folder / "overload_demo" / self.file
        text = edited.read_text()
        for old, new in self.edits.items():
            assert old in text, f"{self.file} has changed: this mutant does nothing"
            text = text.replace(old, new)
        edited.write_text(text)
        return folder


MUTANTS = {
    # The lease is not recorded: the batch of a killed worker is lost.
    "a bare pop": Mutant(
        "queue/lua/lease.lua",
        {"  redis.call('ZADD', KEYS[2], unpack(leases))\n": "", "if #dead_workers > 0 then": "if false then"},
        ("lost",),
    ),
    # A worker whose lease has expired settles a job leased by another one.
    "no fence": Mutant(
        "queue/lua/settle.lua",
        {"if owners[i] and string.match(owners[i], '^%d+') == fence then": "if true then"},
        ("result changed", "illegal transition", "not conserved"),
    ),
    # A lost reply leads to a second job of the same request.
    "an enqueue that is not idempotent": Mutant(
        "queue/lua/enqueue.lua",
        {"if in_this_call[id] or (any_known and redis.call('EXISTS', job_keys[i]) == 1) then": "if false then"},
        ("not conserved", "started too often"),
    ),
    # The client gets its 202 before the store has the job.
    "202 before the commit": Mutant(
        "api/direct.py",
        {
            "        self._producer.hand_in(new, partial(request.committed, new))\n": (
                "        import asyncio\n\n"
                "        self._producer.hand_in(new, lambda _: None)\n"
                "        reply = Enqueued(new.job_id, 0.0)\n"
                "        asyncio.get_running_loop().call_soon(request.committed, new, reply)\n"
            )
        },
        ("lost", "unknown id"),
    ),
}
