"""Blocks about a cluster: its rates beside one store, and on paper the cores and primaries that a rate needs."""

import math

from experiments.bench.record import Benchmark, markdown_table
from overload_demo.lab.wording import about

ACCEPTED, POLLED, DRAINED = "accepted, 256 connections", "polled, 256 connections", "drained, no-op jobs, one worker"
PARTS = ("API", "gateway", "primaries", "replicas", "worker")
RATES = (10_000, 100_000, 1_000_000)  # jobs a second
POLLS = 5  # of each job by its client
UTILISATION = 0.65  # chosen: an M/M/1 queue then answers in 2.9 times its service time


def cluster_block(benchmark: Benchmark) -> str:
    """Return the ratio of each rate, and the CPU time of a job or poll by part."""
    shown = {row.what: row.shown.replace(" µs", "") for row in benchmark.rows}
    rows = [
        (case, shown[f"{case}: six nodes ÷ one store"], *(shown.get(f"{case}: CPU of {part}", "") for part in PARTS))
        for case in ("accepted, 64 connections", ACCEPTED, POLLED, DRAINED)
    ]
    heads = ("", "six nodes ÷ one store (aim ≥ 0.7)", *(f"{part}, µs" for part in PARTS))
    note = f"Deepest shard ÷ mean shard: {shown['deepest shard ÷ mean shard']} (at most 1.2)."
    return f"{markdown_table(heads, rows)}\n\n{note}\n\n{benchmark.place.recorded}; {benchmark.place.where}."


def capacity_block(benchmark: Benchmark) -> str:
    """Return the service demand of each part, and by the utilisation law the cores that each rate needs."""
    measured = {row.what: row.value for row in benchmark.rows}
    rows = []
    totals = dict.fromkeys(RATES, 0)
    for part in PARTS:
        accepted, polled, drained = (
            measured.get(f"{case}: CPU of {part}", 0.0) for case in (ACCEPTED, POLLED, DRAINED)
        )
        demand = accepted + POLLS * polled + drained
        cores = {rate: math.ceil(rate * demand / 1e6 / UTILISATION) for rate in RATES}
        totals = {rate: totals[rate] + cores[rate] for rate in RATES}
        terms = f"{about(accepted)} + {POLLS} · {about(polled)} + {about(drained)} = {about(demand)}"
        rows.append((f"{part}, cores", terms, *(f"{cores[rate]:,}" for rate in RATES)))
        if part == "primaries":
            groups = measured[f"{ACCEPTED}: jobs an enqueue call"]
            calls = [f"{rate / groups / cores[rate]:,.0f}" for rate in RATES]
    rows.append(("all, cores", "", *(f"{total:,}" for total in totals.values())))
    rows.append(("groups a second on the disk of a primary", f"{about(groups)} jobs a group", *calls))
    heads = ("", f"D, µs of CPU: accept + {POLLS} polls + drain", *(f"{rate:,} jobs/s" for rate in RATES))
    return markdown_table(heads, rows)
