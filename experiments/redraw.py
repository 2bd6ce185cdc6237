"""Draw the committed figures again from their recorded data: ``python -m experiments.redraw``. Measures nothing.

The figures of ``at_once`` and of the live class are not among them: their curves are not in the recorded files.
"""

from pathlib import Path

import typer

from experiments import record_baseline
from experiments.bench import growth
from experiments.bench.peers.comparison import Comparison, draw
from experiments.bench.record import RESULTS, Benchmark
from overload_demo.lab import plots
from overload_demo.lab.result import BaselineRecording, SpikeResult


def main(output: Path = RESULTS) -> None:
    """Draw each figure into the folder of the recorded results, or into another one."""
    for name in ("spike", "spike_far"):
        plots.spike(SpikeResult.read(RESULTS / f"{name}.json")).save(output / f"{name}.png")
    for path in RESULTS.glob("naive_*.json"):
        runs = BaselineRecording.model_validate_json(path.read_bytes()).runs
        record_baseline.draw(runs, output / path.with_suffix(".png").name)
    draw(Comparison.read(), output / "bench_peers.png")
    recorded = Benchmark.model_validate_json((RESULTS / "bench_growth.json").read_bytes())
    growth.draw(recorded.rows, output / growth.PICTURE.name)


if __name__ == "__main__":
    typer.run(main)
