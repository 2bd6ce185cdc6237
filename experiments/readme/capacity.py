"""Blocks about a cluster: its rates beside one store, and on paper the cores and primaries that a rate needs."""

import math

from experiments.bench.record import Benchmark, markdown_table
from overload_demo.lab import about

FEW = "accepted, 64 connections"
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
        for case in (FEW, ACCEPTED, POLLED, DRAINED)
    ]
    heads = ("", "six nodes ÷ one store (aim ≥ 0.7)", *(f"{part}, µs" for part in PARTS))
    note = f"Deepest shard ÷ mean shard: {shown['deepest shard ÷ mean shard']} (at most 1.2)."
    return f"{markdown_table(heads, rows)}\n\n{note}\n\n{benchmark.place.recorded}; {benchmark.place.where}."


def capacity_block(benchmark: Benchmark) -> str:
    """Return the service demand of each part, and by the utilisation law the cores that each rate needs."""
    measured = {row.what: row.value for row in benchmark.rows}

    def demands(case: str, part: str) -> list[float]:
        cpu = [measured.get(f"{one}: CPU of {part}", 0.0) for one in (case, POLLED, DRAINED)]
        return [cpu[0], POLLS * cpu[1], cpu[2]]

    def cores(case: str, *parts: str) -> list[int]:
        of_a_job = [sum(demands(case, part)) / 1e6 for part in parts]
        return [sum(math.ceil(rate * one / UTILISATION) for one in of_a_job) for rate in RATES]

    rows = []
    for part in PARTS:
        terms = demands(ACCEPTED, part)
        shown = f"{' + '.join(map(about, terms))} = {about(sum(terms))}"
        rows.append((f"{part}, cores", shown, *map(about, cores(ACCEPTED, part))))
    groups = {case: measured[f"{case}: jobs an enqueue call"] for case in (ACCEPTED, FEW)}
    for case, jobs in groups.items():
        rows.append(("all, cores", f"{case}: {about(jobs)} jobs a group", *map(about, cores(case, *PARTS))))
    calls = [rate / groups[ACCEPTED] / of for rate, of in zip(RATES, cores(ACCEPTED, "primaries"), strict=True)]
    rows.append(("groups a second on each primary's disk", "", *(f"{one:,.0f}" for one in calls)))
    heads = ("", f"D, µs of CPU: accept + {POLLS} polls + drain", *(f"{rate:,} jobs/s" for rate in RATES))
    return markdown_table(heads, rows)
