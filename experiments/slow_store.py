"""The main job on a distant database: ``python -m experiments.slow_store`` puts a simulated round trip before a store.

The real spike runs with ``--upstash`` through a proxy on this machine. It adds the round trip to each exchange and
delays requests above the limit on commands, as the vendor does. The store behind it is the embedded one, on a disk.
With ``--record`` the run becomes the recorded one.
"""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

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
    folder.mkdir(exist_ok=True)
    before = set(folder.glob("*/result.json"))
    with one_line_errors(), folder_in(folder) as place:
        code = _spike(place, round_trip, commands_per_s, ["--requests", str(requests), "--output", str(folder)])
    runs = set(folder.glob("*/result.json")) - before
    if code or len(runs) != 1:
        fail("the spike was not absorbed", code or 1)
    if record:
        _record(runs.pop())


def _spike(place: Path, round_trip_s: float, commands_per_s: float, options: list[str]) -> int:
    command = [sys.executable, "-m", "overload_demo", "spike", "--upstash", "--yes", "--baseline", "none", *options]
    with far_store(place / "data", round_trip_s) as cloud:
        cloud.commands_per_s = commands_per_s
        return subprocess.run(command, env=environment(place, **cloud.variables)).returncode


def _record(run: Path) -> None:
    """Record a run with the command that repeats it."""
    result = SpikeResult.read(run)
    command = shlex.join(("python", "-m", "experiments.slow_store", *sys.argv[1:]))
    conditions = result.conditions.model_copy(update={"command": command})
    result.model_copy(update={"conditions": conditions}).save(run.parent)
    keep(run.parent, "spike_far")


if __name__ == "__main__":
    typer.run(main)
