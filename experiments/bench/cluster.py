"""A cluster of six nodes beside one store, and the CPU time of a job by part: ``python -m experiments.bench.cluster``.

``wrk`` posts to one API process in turns, first on three primaries with a replica each, where a 202 waits for the
primary's disk and one replica, then on one embedded server. Then it polls queued jobs, and one worker drains no-op jobs
on each. All processes share the cores of this machine: on machines of their own, parts that limit here do not compete.
"""

import asyncio
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import typer

from experiments.bench.limit import microseconds
from experiments.bench.polling import polls
from experiments.bench.record import Folder, Rounds, Row, Seconds, recording
from experiments.bench.servers import accepted_per_s, count_done, drained, folder_in, our_api, stats, worker, wrk
from overload_demo.lab.parts import store_processes
from overload_demo.load import LoadPlan, run_load
from overload_demo.store.data_dir import NODE

NODES, CONNECTIONS, POLLED = 6, (64, 256), 2_000
PRIMARIES = {f"{NODE}{number}" for number in range(NODES // 2)}  # without a failover


def main(pairs: Rounds = 5, seconds: Seconds = 4.0, folder: Folder = Path()) -> None:
    """Measure acceptance at 64 and 256 connections, polls and the drain, some seconds each time, in pairs."""
    cluster: dict[str, Any] = {"OVERLOAD_NODES": NODES, "OVERLOAD_MIN_REPLICAS": 1}
    with recording("cluster", folder) as (rows, notes), folder_in(folder) as single, folder_in(folder) as several:
        with our_api(single) as (one, _), our_api(several, **cluster) as (many, api):
            pids = {"API": api, **store_processes(several / "data")}
            for connections in CONNECTIONS:
                accept = partial(accepted_per_s, connections=connections, seconds=seconds)
                before = stats(many)
                seen = [(microseconds(pids, partial(accept, many)), accept(one)) for _ in range(pairs)]
                jobs, calls = (stats(many)[name] - before[name] for name in ("accepted", "rest_calls"))
                rows += _rows(f"accepted, {connections} connections", seen)
                rows.append(Row(what=f"accepted, {connections} connections: jobs an enqueue call", ours=[jobs / calls]))
            depths = [shard["queue_length"] for shard in stats(many)["shards"]]
            even = [max(depths) * len(depths) / sum(depths)]
            rows.append(Row(what="deepest shard ÷ mean shard", ours=even, at_least=1.2, less_is_better=True))
            of_many, of_one = (partial(wrk, url, CONNECTIONS[-1], seconds, _polling(url)) for url in (many, one))
            rows += _rows("polled, 256 connections", [(microseconds(pids, of_many), of_one()) for _ in range(pairs)])
            seen = []
            for _ in range(pairs):
                with worker(several, **cluster) as part:
                    done, every = count_done(many), pids | {"worker": part.pid or 0}
                    costs = microseconds(every, lambda: drained(many, for_s=seconds)[0], done)
                with worker(single):
                    seen.append((costs, drained(one, for_s=seconds)[0]))
            rows += _rows("drained, no-op jobs, one worker", seen)
        notes["nodes"] = f"{NODES}: half of them replicas; a 202 waits for one"


def _polling(url: str) -> str:
    return polls(asyncio.run(run_load(LoadPlan(url, requests=POLLED, connections=CONNECTIONS[0]))).accepted_ids)


def _rows(what: str, seen: list[tuple[dict[str, float], float]]) -> list[Row]:
    """The ratio of the rates, and the CPU time of a job by part on the cluster."""
    rates = [(costs["rate"], single) for costs, single in seen]
    parts: dict[str, list[float]] = defaultdict(list)
    for costs, _ in seen:
        summed: dict[str, float] = defaultdict(float)
        for name, spent in costs.items():
            role = "primaries" if name in PRIMARIES else "replicas" if name.startswith(NODE) else name
            summed[role] += spent
        for role in summed.keys() - {"rate"}:
            parts[role].append(summed[role])
    ratio = Row.of_pairs(f"{what}: six nodes ÷ one store", rates, unit="/s", aim=0.7)
    return [ratio, *(Row(what=f"{what}: CPU of {part}", unit="µs", ours=parts[part]) for part in sorted(parts))]


if __name__ == "__main__":
    typer.run(main)
