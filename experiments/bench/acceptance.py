"""Durable acceptances a second, beside an endpoint that stores nothing: ``python -m experiments.bench.acceptance``.

One API process, no worker, embedded store with ``appendfsync always``. ``wrk`` is the load generator where it is
installed. The project's own closed loop is always measured beside it, with its CPU: where it, gateway and Redis fill
the second core, the whole machine is measured. At a rate that fills nothing, both must agree.
"""

import asyncio
import shutil
from pathlib import Path

import typer

from experiments.bench import servers
from experiments.bench.record import Folder, Rounds, Row, Seconds, recording
from overload_demo.load import LoadPlan, Shape, run_load

STORING_NOTHING = "experiments.bench.compared:storing_nothing"
# By connections; for wrk, because the own loader competes for the second core.
BOUNDS = {64: {"at_least": 1.0, "aim": 1.5}, 256: {"at_least": 1.3, "aim": 2.0}}
CALM_CONNECTIONS, PAUSE_MS = 64, 30  # below saturation: each connection waits so long between two requests

_cpu_shares: list[float] = []


def main(pairs: Rounds = 5, seconds: Seconds = 4.0, folder: Folder = Path()) -> None:
    """Measure both servers in turn with 64 and 256 connections, each time for some seconds, and record the ratios."""
    loaders = {"wrk": servers.accepted_per_s} if shutil.which("wrk") else {}
    loaders["own loader"] = _by_own_loader
    with recording("acceptance", folder) as (rows, notes), servers.folder_in(folder) as own:
        with servers.our_api(own) as (ours, _), servers.uvicorn(STORING_NOTHING) as (theirs, _):
            for name, load in loaders.items():
                for connections, bounds in BOUNDS.items():
                    measured = [
                        (load(ours, connections, seconds), load(theirs, connections, seconds)) for _ in range(pairs)
                    ]
                    what = f"accepted, {connections} connections, {name} ÷ storing nothing"
                    rows.append(Row.of_pairs(what, measured, unit="/s", **(bounds if name == "wrk" else {})))
            if "wrk" in loaders:
                rows.append(_agreement(ours, pairs, seconds))
            counted = servers.stats(ours)
        notes |= {
            "REST calls a job, over the whole run": round(counted["rest_calls"] / counted["accepted"], 4),
            "CPU of the project's loader, % of a core": f"{100 * min(_cpu_shares):.0f} to {100 * max(_cpu_shares):.0f}",
            "flags of the endpoint that stores nothing": " ".join(servers.FLAGS),
        }


def _agreement(url: str, pairs: int, seconds: float) -> Row:
    """Compare what both load generators count below saturation.

    wrk runs first, on connections that pause between requests. The own open loop then offers the rate that wrk reached.
    """
    measured = []
    for _ in range(pairs):
        by_wrk = servers.wrk(f"{url}/jobs", CALM_CONNECTIONS, seconds, servers.posting(PAUSE_MS))
        plan = LoadPlan(url, requests=round(by_wrk * seconds), rate_per_s=by_wrk, shape=Shape.CONSTANT)
        measured.append((asyncio.run(run_load(plan)).summary().accepted_per_s, by_wrk))
    what = "accepted below saturation, own loader ÷ wrk (to agree within 15 %)"
    return Row.of_pairs(what, measured, unit="/s", at_least=0.85, aim=1.0)


def _by_own_loader(url: str, connections: int, seconds: float) -> float:
    summary = servers.closed_loop(url, connections, seconds)
    _cpu_shares.extend(summary.health.cpu_share)
    return summary.accepted_per_s


if __name__ == "__main__":
    typer.run(main)
