"""Blocks made of the recorded runs: every measured number of the documents comes from here."""

import textwrap

from experiments.bench.peers.comparison import ACCEPTED, DONE, Comparison, median
from experiments.bench.peers.libraries import OURS
from experiments.bench.record import RESULTS, Benchmark, Row, markdown_table
from experiments.fault_matrix import FaultMatrix
from experiments.readme.beside import bounded_rows, peers_block
from experiments.readme.capacity import capacity_block, cluster_block
from overload_demo.lab import about
from overload_demo.lab.report import PRICE_PER_100K_COMMANDS
from overload_demo.lab.result import BaselineRun, SpikeResult, recorded_baseline
from overload_demo.load import Shape
from overload_demo.load.load_result import Percentiles

REACH = (
    "acceptance",
    "at_once",
    "drain",
    "polling",
    "idle",
    "transport",
    "gateway",
    "footprint",
    "fresh_clone",
    "cluster",
)
BENCH = "python -m experiments.bench."


def front_page() -> dict[str, str]:
    """Return the blocks of the project's README."""
    spike, peers, faults = SpikeResult.read(RESULTS / "spike.json"), Comparison.read(), FaultMatrix.recorded()
    rows = [(*row[:2], f"`{row[2]}`") for row in [*_spike_results(spike), *_benchmark_results(peers, faults)]]
    place, environment = spike.conditions, spike.load.environment
    note = (
        f"The spike ran on {environment.cores} cores, Python {environment.python}, {place.filesystem}, with durability "
        f"`{place.durability}`. In brackets: the lowest and the highest measurement."
    )
    return {"results": f"{markdown_table(('what', 'result', 'measured by'), rows)}\n\n{_filled(note)}"}


def experiments_page() -> dict[str, str]:
    """Return the blocks of ``experiments/README.md`` that show numbers."""
    growth, peers, cluster = Benchmark.read("growth"), Comparison.read(), Benchmark.read("cluster")
    return {
        "numbers": spike_block(SpikeResult.read(RESULTS / "spike.json")),
        "reach": reach_block([Benchmark.read(name) for name in REACH], peers),
        "peers": peers_block(peers),
        "at-once": at_once_block(Benchmark.read("at_once")),
        "growth": "\n\n".join(_growth_table(growth, of_what) for of_what in ("queued", "API processes", "workers")),
        "upstash": upstash_block(Benchmark.read("drain")),
        "limit": limit_block(Benchmark.read("limit")),
        "cluster": cluster_block(cluster),
        "capacity": capacity_block(cluster),
        "baseline": baseline_block(recorded_baseline(RESULTS)),
    }


def _spike_results(spike: SpikeResult) -> list[tuple[str, str, str]]:
    naive, times = spike.baseline, spike.load.response_time
    assert naive
    answered = f"{naive.summary.accepted:,} of {naive.summary.planned:,}; {_p50_p99(naive.summary.response_time)}"
    accepted = f"{spike.accepted:,} of {spike.offered:,}; {spike.lost:,}; {_p50_p99(times)}"
    command = spike.conditions.command
    return [
        ("a spike on the queue API: accepted; lost; response time p50 / p99", accepted, command),
        ("the same spike on the naive API: answered in time; response time p50 / p99", answered, command),
    ]


def _benchmark_results(peers: Comparison, faults: FaultMatrix) -> list[tuple[str, str, str]]:
    names = ("acceptance", "at_once", "polling", "fresh_clone")
    shown = {row.what: row.shown for name in names for row in Benchmark.read(name).rows}
    drained = peers.rates(DONE)
    ours = median(drained.pop(OURS.row(OURS.workers[0])))
    second = next(iter(drained))
    holding = sum(not row.wrong and not row.not_here for row in faults.rows)
    killed = faults.row("F5a")
    results = {
        "accepted a second, durable ÷ a FastAPI endpoint that stores nothing, 256 connections": (
            shown["accepted, 256 connections, wrk ÷ storing nothing"]
        ),
        "accepted a second, durable ÷ BullMQ behind Fastify, 64; 256 connections": "; ".join(
            peers.rows(unit)["BullMQ"].shown for unit in ACCEPTED
        ),
        f"empty jobs done a second, one worker; {second}, the fastest of {len(drained)} configurations of other queues": (
            f"{ours:,.0f}; {median(drained[second]):,.0f}"
        ),
        "100,000 sockets opened at once: answered 202 and stored; peak memory of the API": (
            shown["100,000 sockets at once, our front door: answered 202 and in the store"]
            + f"; {shown['memory in that run (peak PSS), API']}"
        ),
        f"faults under load that lose no more than promised; `kill -9` of Redis, {killed.fired} times: lost": (
            f"{holding} of {len(faults.rows)}; {killed.lost:,} of {killed.accepted:,}"
        ),
        "status poll, p50, with 1,000,000 jobs queued ÷ with 1,000": (
            shown["status poll, p50, 1,000,000 queued ÷ 1,000 queued"]
        ),
        "fresh clone until the first command above has finished": (
            shown["fresh clone until the README's first command has finished"]
        ),
    }
    programs = ("acceptance", "peers", "peers", "at_once", "", "polling", "fresh_clone")
    commands = [f"{BENCH}{name}" if name else "python -m tests.history" for name in programs]
    return [(what, result, command) for (what, result), command in zip(results.items(), commands, strict=True)]


def spike_block(result: SpikeResult) -> str:
    """Return the recorded spike as a table, queue API beside naive API."""
    naive, conditions, environment = result.baseline, result.conditions, result.load.environment
    assert naive
    assert result.rest_calls_per_job is not None
    assert result.upstash_commands
    summary = naive.summary
    cut = f" (stopped after {naive.max_duration_s:g} s)" if summary.not_fired else ""
    peaks = f"{result.peak_queue_depth:,}", f"{max(naive.series.in_flight):,.0f}"
    rows = [
        ("requests fired", f"{result.offered:,}", f"{summary.planned:,}{cut}"),
        ("accepted / answered in time", f"{result.accepted:,}", f"{summary.accepted:,}"),
        ("failed", f"{result.offered - result.accepted:,}", f"{summary.planned - summary.accepted:,}"),
        ("response time, p50 / p99", _p50_p99(result.load.response_time), _p50_p99(summary.response_time)),
        ("peak queue depth / peak requests in flight", *peaks),
        ("jobs done, lost, duplicated", f"{result.done:,}, {result.lost:,}, {result.duplicated:,}", ""),
        ("drain rate, jobs/s; empty after", f"{result.drain_rate_per_s:,.0f}; {result.seconds_to_empty:,.0f} s", ""),
        ("capacity of the one slot, jobs/s", f"{result.capacity_per_s:,.0f}", f"{naive.capacity_per_s:,.0f}"),
    ]
    memory = ", ".join(f"{name} {megabytes:,.0f}" for name, megabytes in result.peak_memory_mb.items())
    least, most = result.upstash_commands
    note = (
        f"Offered {conditions.rate_per_s:,.0f} requests/s, one job {conditions.processing_delay_s * 1000:g} ms; "
        f"{environment.cores} cores ({environment.processor}), Python {environment.python}, {conditions.filesystem}, "
        f"durability `{conditions.durability}`; peak memory in MB ({result.memory_kind}): {memory}; "
        f"{result.rest_calls_per_job:.3f} REST calls a job, {least:,} store commands when a script counts as one and "
        f"{most:,} when those inside count too; load generator: {result.load.verdict}, "
        f"against the naive API: {summary.verdict}."
    )
    table = markdown_table(("", "queue API", "naive API"), rows)
    return f"`{conditions.command}`, recorded {result.recorded_at[:10]}:\n\n{table}\n\n{_filled(note)}"


def reach_block(benchmarks: list[Benchmark], peers: Comparison) -> str:
    """Return every number with a bound, and the benchmark that measures it."""
    measured = [(row, benchmark.place.command) for benchmark in benchmarks for row in benchmark.rows]
    measured += [(row, f"{BENCH}peers") for row in bounded_rows(peers)]
    rows = []
    for row, command in measured:
        if row.at_least is not None or "own " in row.what:
            shown = row.shown if row.reaches(row.at_least) else f"{row.shown} **missed**"
            name = f"`{command.removeprefix(BENCH).split()[0]}`"
            rows.append((row.what, shown, _bound(row, row.at_least), _bound(row, row.aim), name))
    heads = ("what", "median (min to max of the runs)", "at least", "aim", f"`{BENCH}…`")
    place, flags = benchmarks[0].place, benchmarks[0].notes["flags of the endpoint that stores nothing"]
    versions = ", ".join(f"{name} {version}" for name, version in place.versions.items())
    note = (
        f"{place.where}, {place.environment.processor}, an fsync takes {place.fsync_p50_ms:g} ms (p50), durability "
        f"`always`; {versions}; recorded {place.recorded_at[:10]}. Flags of the endpoint that stores nothing, and of plain "
        f"uvicorn: `{flags}`."
    )
    return f"{markdown_table(heads, rows)}\n\n{_filled(note)}"


def at_once_block(benchmark: Benchmark) -> str:
    """Return how many sockets each server answered, and how late."""
    shown = {row.what: row.shown for row in benchmark.rows}
    rows = []
    for what, answered in shown.items():
        case, _, kind = what.partition(": ")
        if kind.startswith("answered"):
            outcome = str(benchmark.notes[f"answers in round 1, {case.partition(' sockets at once, ')[2]}"])
            rows.append((case, answered, shown[f"{case}: the last 202 after"], outcome))
    return markdown_table(("", "answered 202", "last 202 after", "outcome of all sockets, one run"), rows)


def _growth_table(benchmark: Benchmark, of_what: str) -> str:
    cells: dict[str, dict[str, str]] = {}
    for row in benchmark.rows:
        name, _, count = row.what.rpartition(", ")
        if count.endswith(f" {of_what}"):
            cells.setdefault(name, {})[count.removesuffix(f" {of_what}")] = about(row.value)
    counts = next(iter(cells.values()))
    return markdown_table((of_what, *counts), [(name, *values.values()) for name, values in cells.items()])


def upstash_block(drain: Benchmark) -> str:
    """Return what the commands of a job mean on Upstash: a limit on the rate, and a price."""
    measured = {row.what: row.value for row in drain.rows}
    commands = measured["Redis commands a job, whole life, those inside scripts counted"]
    scripts = measured["the same with a script counted as one"]
    dollars = [1_000_000 * one / 100_000 * PRICE_PER_100K_COMMANDS for one in (scripts, commands)]
    return _filled(f"""**On Upstash** a job takes {commands:.3g} commands in its life. The vendor limits a database to 10,000
        commands a second, which is {10_000 / commands:,.0f} jobs/s if commands inside scripts count. If a script counts
        as one command ({scripts:.2g} a job), the limit is out of reach. Its documentation leaves this open. A million
        jobs cost ${dollars[0]:.2f} or ${dollars[1]:.2f}. Several databases are shards of one queue.""")


def limit_block(benchmark: Benchmark) -> str:
    """Return the CPU time of a job by process and part, in microseconds, and the rates that it allows."""
    cases: dict[str, dict[str, str]] = {}
    for row in benchmark.rows:
        case, _, part = row.what.partition(": ")
        cases.setdefault(case, {})[part] = row.shown.removesuffix(" µs")
    parts = dict.fromkeys(part for cells in cases.values() for part in cells)
    table = [(part, *(cells.get(part, "") for cells in cases.values())) for part in parts]
    return f"{markdown_table(('µs of CPU time a job', *cases), table)}\n\n{benchmark.place.recorded}."


def baseline_block(runs: list[BaselineRun]) -> str:
    """Return the recorded naive runs under the spike, one row for each variant."""
    rows = [
        (
            f"`{run.variant}`",
            f"{run.summary.planned:,} at {run.rate_per_s:,.0f}/s",
            f"{run.summary.accepted:,}",
            f"{run.summary.planned - run.summary.accepted:,}",
            _p50_p99(run.summary.response_time),
            f"{max(run.answered_per_s()):,.0f}/s",
        )
        for run in runs
        if run.shape is Shape.SPIKE
    ]
    return markdown_table(("variant", "offered", "answered in time", "failed", "p50 / p99", "best second"), rows)


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False)


def _bound(row: Row, bound: float | None) -> str:
    return "" if bound is None else f"{'≤' if row.less_is_better else '≥'} {bound:,g}"


def _p50_p99(times: Percentiles | None) -> str:
    return f"{times.p50_s * 1000:,.0f} / {times.p99_s * 1000:,.0f} ms" if times else "-"
