"""Record the main job: ``python -m experiments.record_spike RUN_FOLDER`` copies a run to ``experiments/results``."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from experiments import readme
from experiments.bench.record import RESULTS


def main(run: Annotated[Path, typer.Argument(help="run folder of `overload-demo spike`")]) -> None:
    """Record a spike and bring the README up to date."""
    shutil.copy(run / "result.json", RESULTS / "spike.json")
    shutil.copy(run / "figure.png", RESULTS / "spike.png")
    readme.main()


if __name__ == "__main__":
    typer.run(main)
