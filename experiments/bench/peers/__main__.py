"""Rates of acceptance and completion, beside other job queues: ``python -m experiments.bench.peers``.

Each library gets its own Redis with the options of the embedded one, one API process and one worker process. A
round measures every library once, so the ratios are paired. Needs ``pip install -e '.[peers]'``:
releases that agree on one redis client. With ``--environments`` each library is measured at its newest release instead.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.peers.comparison import Comparison, Recorded, draw, without_paths
from experiments.bench.peers.libraries import LIBRARIES, OURS, installed
from experiments.bench.peers.measure import CONNECTIONS, Rates, measure
from experiments.bench.record import RESULTS, Place
from overload_demo.console import one_line_errors
from overload_demo.errors import ConfigurationError


def main(
    rounds: Annotated[int, typer.Option(help="measurements of each library", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="length of one measurement of acceptance, seconds", min=1)] = 4.0,
    jobs: Annotated[int, typer.Option(help="jobs in one drain; slower workers get fewer", min=10)] = 10_000,
    only: Annotated[list[str] | None, typer.Option(help="measure this library only; may be repeated")] = None,
    environments: Annotated[
        Path | None, typer.Option(help="folder with an environment for each library; made where missing")
    ] = None,
    folder: Annotated[Path, typer.Option(help="where the data goes for the while; not on tmpfs")] = Path(),
    output: Annotated[Path, typer.Option(help="where the record and the figure go")] = RESULTS,
) -> None:
    """Measure every library that is installed, a round at a time, and record the ratios and a figure."""
    with one_line_errors(), tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as temporary:
        unknown = set(only or []) - {library.name for library in LIBRARIES}
        if unknown:
            raise ConfigurationError(f"no such library: {', '.join(sorted(unknown))}")
        place = without_paths(Place.here("experiments.bench.peers", Path(temporary)))
        wanted = [library for library in LIBRARIES if not only or library.name in only]
        contestants = installed([OURS, *wanted], environments)
        if len(contestants) == 1:
            raise ConfigurationError("nothing to compare with: pip install -e '.[peers]'")
        rates, own = Rates(), Path(temporary).absolute()
        for number in range(rounds):
            turn = number % len(contestants)  # no library always runs first, or after the same one
            for contestant in contestants[turn:] + contestants[:turn]:
                print(f"round {number + 1}: {measure(contestant, own, seconds, jobs, rates)}", flush=True)
        notes: dict[str, float | str] = {
            "loader of acceptance": f"{'wrk' if shutil.which('wrk') else 'own loader'}, {CONNECTIONS} connections",
            "way to the store": "peers: TCP on loopback; ours: REST gateway, then a Unix socket",
            "fsync p50, ms": place.fsync_p50_ms,
        }
        recorded = []
        for one in contestants:
            drains = {worker.name: min(jobs, worker.most_jobs) for worker in one.about.workers}
            recorded.append(Recorded(about=one.about, versions=one.versions, jobs=drains))
        comparison = Comparison(place=place, rows=rates.rows(), notes=notes, contestants=recorded)
        draw(comparison, output / "bench_peers.png")
        comparison.record("peers", output)


if __name__ == "__main__":
    typer.run(main)
