"""Drain rate of no-op jobs, and the store requests of a job: ``python -m experiments.bench.drain``.

Each round has a new store: jobs are accepted at 256 connections, then one worker with crash-safe leases does them all.
The drain rate counts from the first to the last progress seen.
"""

from pathlib import Path
from typing import Any

import typer

from experiments.bench.record import Count, Folder, Rounds, Row, recording
from experiments.bench.servers import commands_run, drained, folder_in, our_api, stats, submitted, worker

CONNECTIONS = 256
LOOKS = 10  # statistics requests that measure the cost of one


def main(rounds: Rounds = 5, jobs: Count = 100_000, folder: Folder = Path()) -> None:
    """Measure drain rate, REST calls and Redis commands of so many jobs a round, and record them."""
    with recording("drain", folder) as (rows, notes):
        seen = [_round(folder, jobs) for _ in range(rounds)]

        def row(name: str, what: str, **fields: Any) -> Row:
            return Row(what=what, ours=[one[name] for one in seen], **{"less_is_better": True, **fields})

        whole_life = "Redis commands a job, whole life, those inside scripts counted"
        rate = {"unit": "/s", "at_least": 5000, "aim": 20_000, "less_is_better": False}
        rows += [
            row("rate", "drain rate, no-op jobs, one worker", **rate),
            row("accepting", f"REST calls a job accepted at {CONNECTIONS} connections", at_least=0.05, aim=0.01),
            row("draining", "REST calls a job drained, no-op", at_least=0.02, aim=0.01),
            row("commands", whole_life, at_least=8, aim=5),
            row("scripts", "the same with a script counted as one"),
        ]
        notes["jobs a round"] = jobs


def _round(parent: Path, jobs: int) -> dict[str, float]:
    with folder_in(parent) as folder, our_api(folder) as (url, _):
        before, of_a_look = commands_run(folder), _cost_of_a_look(folder, url)
        submitted(url, jobs, CONNECTIONS)
        calls_accepting = stats(url)["rest_calls"]
        with worker(folder):
            rate, looks = drained(url)
            calls_draining = stats(url)["rest_calls"] - calls_accepting - looks
        scripts, commands = (after - earlier for after, earlier in zip(commands_run(folder), before, strict=True))
        looks += LOOKS + 2  # those that measured their cost, and the two above
        return {
            "rate": rate,
            "accepting": (calls_accepting - LOOKS) / jobs,
            "draining": calls_draining / jobs,
            "scripts": (scripts - looks) / jobs,
            "commands": (commands - looks * of_a_look) / jobs,
        }


def _cost_of_a_look(folder: Path, url: str) -> float:
    """Return the commands of one statistics request, including its script call."""
    _, before = commands_run(folder)
    for _ in range(LOOKS):
        stats(url)
    return (commands_run(folder)[1] - before) / LOOKS


if __name__ == "__main__":
    typer.run(main)
