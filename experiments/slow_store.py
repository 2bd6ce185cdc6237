"""The main job on a distant database: ``python -m experiments.slow_store`` puts a simulated round trip before a store.

The real spike runs with ``--upstash`` through a proxy on this machine. It adds the round trip to each exchange and
delays requests above the limit on commands, as the vendor does. The store behind it is the embedded one, on a disk.
With ``--record`` the run becomes the recorded one.
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.record import command_line
from experiments.bench.servers import environment, folder_in
from experiments.record_spike import keep
from overload_demo.console import fail, one_line_errors
from overload_demo.lab.result import SpikeResult
from overload_demo.lab.simulated_cloud import COMMANDS_PER_S, far_store


def main(
    round_trip: Annotated[float, typer.Option(help="added to every exchange, seconds", min=0.0, max=1.0)] = 0.05,
    requests: Annotated[int, typer.Option(help="requests to fire", min=1)] = 100_000,
    commands_per_s: Annotated[
        float, typer.Option(help="limit on commands a second, those inside scripts counted", min=1.0)
    ] = COMMANDS_PER_S,
    folder: Annotated[Path, typer.Option(help="where store and run folder go; not on tmpfs")] = Path("runs"),
    record: Annotated[bool, typer.Option(help="keep the run as the recorded one")] = False,
) -> None:
    """Run the spike, with its output and exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("*/result.json"))
    with one_line_errors(), folder_in(folder) as place:
        options = ["--upstash", "--yes", "--baseline", "none", "--requests", str(requests), "--output", str(folder)]
        with far_store(place / "data", round_trip) as cloud:
            cloud.commands_per_s = commands_per_s
            command = [sys.executable, "-m", "overload_demo", "spike", *options]
            code = subprocess.run(command, env=environment(place, **cloud.variables)).returncode
    runs = set(folder.glob("*/result.json")) - before
    if code or len(runs) != 1:
        fail("the spike was not absorbed", code or 1)
    if record:  # with the command that repeats it
        run = runs.pop()
        result = SpikeResult.read(run)
        conditions = result.conditions.model_copy(update={"command": command_line("experiments.slow_store")})
        result.model_copy(update={"conditions": conditions}).save(run.parent)
        keep(run.parent, "spike_far")


if __name__ == "__main__":
    typer.run(main)
