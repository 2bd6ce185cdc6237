"""Record the main job: ``python -m experiments.record_spike RUN_FOLDER`` copies a run to ``experiments/results``."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.record import RESULTS
from experiments.readme.documents import bring_up_to_date


def main(run: Annotated[Path, typer.Argument(help="run folder of `overload-demo spike`")]) -> None:
    """Record a spike and bring the documents up to date."""
    shutil.copy(run / "result.json", RESULTS / "spike.json")
    shutil.copy(run / "figure.png", RESULTS / "spike.png")
    bring_up_to_date()


if __name__ == "__main__":
    typer.run(main)
