"""Latency of a poll with a million queued jobs, and a storm of polls: ``python -m experiments.bench.polling``.

Two stores with an API each: one with 1,000 jobs queued, one with 1,000,000. The pairs poll the job in the middle,
one poll after the other. Then 256 clients poll jobs all over the deep queue, without a pause.
"""

import asyncio
import random
import shutil
from contextlib import ExitStack
from pathlib import Path

import typer

from experiments.bench.record import Count, Folder, Rounds, Row, recording
from experiments.bench.servers import fill, folder_in, our_api, p50_of, stats, wrk
from overload_demo.errors import OverloadDemoError

CLIENTS = 256
STORM_S = 4.0
POLLS = 1000


def main(pairs: Rounds = 5, shallow: Count = 1_000, deep: Count = 1_000_000, folder: Folder = Path()) -> None:
    """Measure polls in a short and a long queue in turn, then a storm, and record them."""
    with recording("polling", folder) as (rows, _), ExitStack() as stack:
        places = [stack.enter_context(folder_in(folder)) for _ in range(2)]
        (few, _), (many, _) = (stack.enter_context(our_api(one)) for one in places)
        few_ids, many_ids = (asyncio.run(fill(*one)) for one in zip(places, (shallow, deep), strict=True))
        measured = [(_poll_s(many, many_ids), _poll_s(few, few_ids)) for _ in range(pairs)]
        what = f"status poll, p50, {deep:,} queued ÷ {shallow:,} queued"
        bounds = {"at_least": 1.2, "aim": 1.0, "less_is_better": True}
        rows.append(Row.of_pairs(what, measured, factor=1000, unit="ms", **bounds))
        if shutil.which("wrk"):
            rows += _storm(many, many_ids, pairs)


def _poll_s(url: str, job_ids: list[str]) -> float:
    """Return the median time of a poll for the job in the middle, seconds; check its position."""
    middle = len(job_ids) // 2
    body, p50_s = p50_of(url, f"/jobs/{job_ids[middle]}", times=POLLS)
    if f'"queue_position":{middle + 1},'.encode() not in body:
        raise OverloadDemoError(f"wrong position of the job in the middle of {len(job_ids):,}: {body!r}")
    return p50_s


def polls(job_ids: list[str]) -> str:
    """Return a wrk script that polls random ones of these jobs."""
    names = ",".join(f'"{job_id}"' for job_id in job_ids)
    request = 'function request() return wrk.format("GET", "/jobs/" .. ids[math.random(#ids)]) end\n'
    return f"local ids = {{{names}}}\n{request}"


def _storm(url: str, job_ids: list[str], rounds: int) -> list[Row]:
    chosen = random.Random(0).sample(job_ids, min(10_000, len(job_ids)))
    rates, calls = [], []
    for _ in range(rounds):
        before = stats(url)["rest_calls"]
        rates.append(wrk(url, CLIENTS, STORM_S, polls(chosen)))
        calls.append((stats(url)["rest_calls"] - before) / (rates[-1] * STORM_S))
    return [
        Row(what=f"polls of {CLIENTS} clients all over {len(job_ids):,} queued jobs", unit="/s", ours=rates),
        Row(what="REST calls a poll in that storm", ours=calls, less_is_better=True),
    ]


if __name__ == "__main__":
    typer.run(main)
