"""Time from a fresh clone to the main job's result: ``python -m experiments.bench.fresh_clone``.

Clones this checkout, takes the README's first command from the clone, and runs it there with an empty environment. It
installs everything again, so the result also depends on the package index and the network.
"""

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import typer

from experiments.bench.record import Folder, Rounds, Row, recording
from overload_demo.errors import OverloadDemoError

ROOT = Path(__file__).parents[2]
KEPT_VARIABLES = ("PATH", "HOME", "LANG")


def main(rounds: Rounds = 5, folder: Folder = Path()) -> None:
    """Measure and record."""
    with recording("fresh_clone", folder) as (rows, notes):
        minutes = [_clone_and_run(folder) / 60 for _ in range(rounds)]
        what = "fresh clone until the README's first command has finished"
        rows.append(Row(what=what, unit="min", ours=minutes, at_least=4.0, aim=2.0, less_is_better=True))
        notes["command"] = _first_command(ROOT)


def _clone_and_run(parent: Path) -> float:
    """Return the seconds from the clone to the command's end. Raises :class:`OverloadDemoError` when it fails."""
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    with tempfile.TemporaryDirectory(dir=parent, prefix="bench-") as temporary:
        clone, since = Path(temporary) / "clone", time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], env=environment, check=True)
        shell = ["sh", "-c", _first_command(clone)]
        outcome = subprocess.run(shell, cwd=clone, env=environment, capture_output=True, text=True)
        if outcome.returncode:
            raise OverloadDemoError(f"it failed: {(outcome.stderr or outcome.stdout).strip().splitlines()[-1]}")
        return time.perf_counter() - since


def _first_command(checkout: Path) -> str:
    found = re.search(r"```\n(python3 -m venv [^\n]+)\n```", (checkout / "README.md").read_text())
    assert found
    return found[1]


if __name__ == "__main__":
    typer.run(main)
