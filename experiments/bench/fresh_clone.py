"""From nothing to the main job's result, as the README promises it: ``python -m experiments.bench.fresh_clone``.

Clones this checkout, takes the README's first command from the clone, and runs it there with an empty environment. It
installs everything anew, so the figure is also one of the package index and its distance.
"""

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.record import Benchmark, Place, Row
from overload_demo.console import one_line_errors
from overload_demo.errors import OverloadDemoError

ROOT = Path(__file__).parents[2]
KEPT = ("PATH", "HOME", "LANG")


def main(
    rounds: Annotated[int, typer.Option(help="how often", min=1)] = 5,
    folder: Annotated[Path, typer.Option(help="where the clones go for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure and record."""
    with one_line_errors():
        place = Place.here("experiments.bench.fresh_clone", folder)
        measured = [_clone_and_run(folder) for _ in range(rounds)]
        row = Row(
            what="fresh clone until the README's first command has finished",
            unit="min",
            ours=[seconds / 60 for seconds in measured],
            at_least=4.0,
            aim=2.0,
            less_is_better=True,
        )
        Benchmark(place=place, rows=[row], notes={"command": _first_command(ROOT)}).record("fresh_clone")


def _clone_and_run(parent: Path) -> float:
    """Seconds from the clone to the command's end. Raises :class:`OverloadDemoError` when it fails."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    with tempfile.TemporaryDirectory(dir=parent, prefix="bench-") as temporary:
        clone, since = Path(temporary) / "clone", time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], env=environment, check=True)
        shell = ["sh", "-c", _first_command(clone)]
        outcome = subprocess.run(shell, cwd=clone, env=environment, capture_output=True, text=True)
        if outcome.returncode:
            raise OverloadDemoError(f"it failed: {(outcome.stderr or outcome.stdout).strip().splitlines()[-1]}")
        return time.perf_counter() - since


def _first_command(checkout: Path) -> str:
    """The first command that the README tells to run."""
    found = re.search(r"```\n(python3 -m venv [^\n]+)\n```", (checkout / "README.md").read_text())
    assert found
    return found[1]


if __name__ == "__main__":
    typer.run(main)
