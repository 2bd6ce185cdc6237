"""The fault matrix, every kind of fault under load and what it lost: ``python -m tests.history``.

Writes its record into ``experiments/results``.
"""

import random
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.bench.record import Place
from experiments.fault_matrix import FaultMatrix
from tests.history.matrix import summed
from tests.history.rows import BY_NAME


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Rows to run; all of them are a new record, some need --times.")
    ] = None,
    times: Annotated[
        int, typer.Option(help="Runs of each row; the sums of chosen rows replace these in the record.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the times and choices.", show_default="random")] = 0,
    share: Annotated[float, typer.Option(help="Of the jobs of each row.")] = 1.0,
) -> None:
    """Run rows of the fault matrix, one after the other. Exit code 0 only if every one holds."""
    if unknown := set(names or ()) - BY_NAME.keys():
        raise typer.BadParameter(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}")
    console, results = Console(), []
    with tempfile.TemporaryDirectory(prefix="faults-", dir=".") as folder:
        place = Place.here("tests.history", Path(folder))
        for name in names or BY_NAME:
            runs = []
            for number in range(times or 1):
                own = Path(folder).absolute() / f"{name}-{number}"
                own.mkdir()
                runs.append(BY_NAME[name].run(own, seed or random.randrange(1, 1_000_000), share=share))
                console.print(runs[-1].describe(), highlight=False, markup=False, soft_wrap=True)
            results.append(summed(runs))
            if names and times and share == 1.0:
                results[-1].place = place
                FaultMatrix.recorded().with_rows(results[-1:], BY_NAME).record()
    if not names and share == 1.0:
        FaultMatrix(place=place, rows=results).record()
    sys.exit(1 if any(result.wrong for result in results) else 0)


if __name__ == "__main__":
    typer.run(main)
