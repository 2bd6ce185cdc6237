"""Rates and latencies beside other job queues: ``python -m experiments.bench.peers``.

Each library gets a store of its own that syncs to disk before it answers, one API process and one worker process, at
its newest release in an environment of its own. A round measures every library once, so the ratios are paired. A run
may measure a part of all; its rows replace those that are recorded.
"""

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.peers.comparison import Comparison, Part, without_paths
from experiments.bench.peers.libraries import LIBRARIES, OURS, installed
from experiments.bench.peers.measure import Measure, Result, idle, in_turns, measure, printed, rows_of
from experiments.bench.record import RESULTS, Folder, Place
from overload_demo.console import one_line_errors
from overload_demo.errors import ConfigurationError
from overload_demo.store.redis_server import server_options


def main(
    rounds: Annotated[int, typer.Option(help="measurements of each library", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="length of one measurement with wrk, seconds", min=1)] = 3.0,
    jobs: Annotated[int, typer.Option(help="jobs in one drain; slower workers get fewer", min=10)] = 20_000,
    tries: Annotated[int, typer.Option(help="jobs posted to an idle stack, each round", min=1)] = 10,
    only: Annotated[list[str] | None, typer.Option(help="measure this library only; may be repeated")] = None,
    what: Annotated[list[Measure] | None, typer.Option(help="measure this only; may be repeated")] = None,
    environments: Annotated[
        Path, typer.Option(help="folder with an environment for each library; made where missing")
    ] = Path("peers-envs"),
    folder: Folder = Path(),
    output: Annotated[Path, typer.Option(help="where the record and the figure go", file_okay=False)] = RESULTS,
) -> None:
    """Measure every library that is installed, a round at a time, and record the ratios and a figure."""
    with one_line_errors(), tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as temporary:
        output.mkdir(parents=True, exist_ok=True)
        wanted = {name.lower() for name in only or [library.name for library in LIBRARIES]}
        if unknown := wanted - {library.name.lower() for library in LIBRARIES}:
            raise ConfigurationError(f"no such library: {', '.join(sorted(unknown))}")
        place, own = without_paths(Place.here("experiments.bench.peers", Path(temporary))), Path(temporary).absolute()
        contestants = installed([OURS, *(one for one in LIBRARIES if one.name.lower() in wanted)], environments)
        if len(contestants) == 1:
            raise ConfigurationError("no library to compare with is installed")
        results: list[Result] = []
        for kind in what or list(Measure):
            fitting = [one for one in contestants if kind.fits(one)]
            if kind is Measure.IDLE:
                results += printed(idle(fitting, own, rounds * tries))
            elif len(fitting) > 1:
                results += in_turns(fitting, rounds, partial(measure, kind, folder=own, seconds=seconds, jobs=jobs))
        notes: dict[str, float | str] = {
            "loader of acceptance": "wrk" if shutil.which("wrk") else "own loader",
            "way to the store": "peers: TCP on loopback; ours: REST gateway, then a Unix socket",
            "options of every Redis": " ".join(server_options("0", "always")),
            "fsync p50, ms": place.fsync_p50_ms,
        }
        part = Part(place=place, rows=rows_of(results), notes=notes, contestants=contestants)
        part.show()
        Comparison.read(output).with_part(part).write(output)


if __name__ == "__main__":
    typer.run(main)
