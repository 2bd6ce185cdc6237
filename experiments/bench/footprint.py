"""Size of a job in the store, in memory and on disk: ``python -m experiments.bench.footprint``.

Jobs of the sample body are accepted without a worker. Then one worker does them all, and the server rewrites its
append-only file by its own rule.
"""

from pathlib import Path

import typer

from experiments.bench.record import Count, Folder, Rounds, Row, recording
from experiments.bench.servers import folder_in, info, our_api, stats, submitted, until, worker

ROWS = {
    "queued": "memory a queued job in the embedded Redis",
    "done": "memory a finished job, its result kept",
    "file queued": "append-only file a job, when all are queued",
    "file done": "append-only file a job, when all are done (rewrites included)",
}
BOUNDS = {"queued": {"at_least": 450.0, "aim": 300.0}}


def main(rounds: Rounds = 5, jobs: Count = 100_000, folder: Folder = Path()) -> None:
    """Measure memory and file of so many jobs a round, and record them."""
    with recording("footprint", folder) as (rows, notes):
        seen = [_round(folder, jobs) for _ in range(rounds)]
        for name, what in ROWS.items():
            ours = [float(one[name]) for one in seen]
            rows.append(Row(what=what, unit="bytes", ours=ours, less_is_better=True, **BOUNDS.get(name, {})))
        notes |= {
            "jobs a round": jobs,
            "rewrites of the file a round": ", ".join(f"{one['rewrites']:.0f}" for one in seen),
            "server": f"{seen[0]['version']}",
        }


def _round(parent: Path, jobs: int) -> dict[str, float | str]:
    with folder_in(parent) as folder, our_api(folder) as (url, _):

        def memory() -> int:
            return int(info(folder, "memory")["used_memory"])

        before = memory()
        submitted(url, jobs, connections=256)
        queued, file_queued = memory(), int(info(folder, "persistence")["aof_current_size"])
        with worker(folder):
            until(lambda: stats(url)["done"] == jobs, within_s=120)
        until(lambda: info(folder, "persistence")["aof_rewrite_in_progress"] == "0", within_s=60)
        persistence = info(folder, "persistence")
        return {
            "queued": (queued - before) / jobs,
            "done": (memory() - before) / jobs,
            "file queued": file_queued / jobs,
            "file done": int(persistence["aof_current_size"]) / jobs,
            "rewrites": int(persistence["aof_rewrites"]),
            "version": info(folder, "server").get("valkey_version", ""),
        }


if __name__ == "__main__":
    typer.run(main)
