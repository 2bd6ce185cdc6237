"""Record the main job: ``python -m experiments.record_spike RUN_FOLDER`` copies a run to ``experiments/results``."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.record import RESULTS
from experiments.readme.documents import bring_up_to_date


def main(run: Annotated[Path, typer.Argument(help="run folder of `overload-demo spike`")]) -> None:
    """Record a spike and update the documents."""
    keep(run, "spike")


def keep(run: Path, name: str) -> None:
    """Copy a run to the recorded ones and update the documents."""
    shutil.copy(run / "result.json", RESULTS / f"{name}.json")
    shutil.copy(run / "figure.png", RESULTS / f"{name}.png")
    bring_up_to_date()


if __name__ == "__main__":
    typer.run(main)
