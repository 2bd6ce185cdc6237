"""The generated blocks of the project's README: its numbers come from the recorded runs."""

import statistics
import textwrap

from experiments.bench.peers.comparison import ACCEPTED, DONE, Comparison
from experiments.bench.peers.libraries import OURS
from experiments.bench.record import RESULTS, Benchmark, Row, figure
from experiments.fault_matrix import FaultMatrix, durability_block, faults_block
from overload_demo.lab.baseline import BaselineRun, recorded_baseline
from overload_demo.lab.price import PRICE_PER_100K_COMMANDS
from overload_demo.lab.result import SpikeResult
from overload_demo.load import Shape

REACH = ("acceptance", "at_once", "drain", "polling", "idle", "transport", "gateway", "footprint", "fresh_clone")


def blocks() -> dict[str, str]:
    """Every block by name."""
    return {
        "numbers": spike_block(SpikeResult.read(RESULTS / "spike.json")),
        "reach": reach_block([Benchmark.read(name) for name in REACH], Comparison.read("peers")),
        "peers": peers_block(Comparison.read("peers")),
        "at-once": at_once_block(Benchmark.read("at_once")),
        "growth": growth_block(Benchmark.read("growth")),
        "limits": limits_block(Benchmark.read("growth"), Benchmark.read("drain")),
        "durability": durability_block(FaultMatrix.recorded()),
        "faults": faults_block(FaultMatrix.recorded()),
        "baseline": baseline_block(recorded_baseline(RESULTS)),
    }


def spike_block(result: SpikeResult) -> str:
    """The recorded spike in a table, ours beside the naive API's."""
    times, naive = result.load.response_time, result.baseline
    assert times is not None
    assert naive is not None
    assert result.rest_calls_per_job is not None
    assert result.upstash_commands is not None
    lost = naive.summary.planned - naive.summary.accepted
    theirs = naive.summary.response_time
    rows = [
        (
            "requests fired",
            f"{result.offered:,}",
            f"{naive.summary.planned:,}"
            + (f" (stopped after {naive.max_duration_s:g} s)" if naive.summary.not_fired else ""),
        ),
        ("accepted / answered in time", f"{result.accepted:,}", f"{naive.summary.accepted:,}"),
        ("failed", f"{result.offered - result.accepted:,}", f"{lost:,}"),
        (
            "time to the answer, p50 / p99",
            _ms(times.p50_s, times.p99_s),
            _ms(theirs.p50_s, theirs.p99_s) if theirs else "-",
        ),
        ("deepest queue / most in flight", f"{result.peak_queue_depth:,}", f"{max(naive.series.in_flight):,.0f}"),
        ("jobs done, lost, duplicated", f"{result.done:,}, {result.lost:,}, {result.duplicated:,}", ""),
        ("drained at, jobs/s; empty after", f"{result.drain_rate_per_s:,.0f}; {result.seconds_to_empty:,.0f} s", ""),
        ("capacity of the one slot, jobs/s", f"{result.capacity_per_s:,.0f}", f"{naive.capacity_per_s:,.0f}"),
    ]
    memory = ", ".join(f"{name} {megabytes:,.0f}" for name, megabytes in result.peak_memory_mb.items())
    environment, conditions = result.load.environment, result.conditions
    least, most = result.upstash_commands
    lines = [
        f"`{conditions.command}`, recorded {result.recorded_at[:10]}:",
        "",
        "| | queue API | naive API |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {ours} | {other} |" for name, ours, other in rows]
    lines += [
        "",
        f"Offered {conditions.rate_per_s:,.0f} requests/s, one job {conditions.processing_delay_s * 1000:g} ms; "
        f"{environment.cores} cores ({environment.processor}), Python {environment.python}, {conditions.filesystem}, "
        f"durability `{conditions.durability}`; peak memory in MB ({result.memory_kind}): {memory}; "
        f"{result.rest_calls_per_job:.3f} REST calls a job, {least:,} store commands when a script counts as one and "
        f"{most:,} when those inside count too; load generator: {result.load.verdict}, "
        f"against the naive API: {naive.summary.verdict}.",
    ]
    return "\n".join(lines)


def reach_block(benchmarks: list[Benchmark], peers: Comparison) -> str:
    """Every number we set out to reach, with its bound and the command that measures it."""
    huey = next(row for row in peers.rows if (row.unit, row.what) == (DONE, "huey"))
    rows = [(row, benchmark.place.command) for benchmark in benchmarks for row in benchmark.rows]
    rows.append((huey.model_copy(update={"what": "drained, no-op jobs ÷ huey", "at_least": 2.0}), peers.place.command))
    lines = ["| what | median (min to max of the runs) | at least | aim | `python -m experiments.bench.…` |"]
    lines += ["|---|---|---|---|---|"]
    for row, command in rows:
        if row.at_least is not None or "own " in row.what:
            name = command.removeprefix("python -m experiments.bench.").split()[0]
            shown = row.shown if row.reaches(row.at_least) else f"{row.shown} **missed**"
            bounds = f"{_bound(row, row.at_least)} | {_bound(row, row.aim)}"
            lines.append(f"| {row.what} | {shown} | {bounds} | `{name}` |")
    return "\n".join([*lines, "", _conditions(benchmarks[0])])


def peers_block(comparison: Comparison) -> str:
    """What becomes of a job whose worker is killed, beside the two rates."""
    accepted, done = comparison.rates(ACCEPTED), comparison.rates(DONE)
    lines = [
        "| library | accepted/s | empty jobs done/s | at a time | a job whose worker is killed with -9 |",
        "|---|---|---|---|---|",
    ]
    for one in comparison.contestants:
        library, worker = one.about, one.about.workers[0]
        version = next(iter(one.versions.values()))
        name = library.name if library.name == OURS.name else f"{library.name} {version}"
        rates = [
            f"{statistics.median(rates[key]):,.0f}" for rates, key in ((accepted, library.name), (done, worker.name))
        ]
        lines.append(f"| {name} | {' | '.join(rates)} | {worker.at_once} | {library.killed} |")
    return "\n".join(lines)


def at_once_block(benchmark: Benchmark) -> str:
    """Who was answered, by what server."""
    lines = ["| | answered 202 | the last one after | what came of all, in one run |", "|---|---|---|---|"]
    rows = {row.what: row for row in benchmark.rows}
    for what, row in rows.items():
        case, _, kind = what.partition(": ")
        if kind.startswith("answered"):
            last = rows[f"{case}: the last 202 after"]
            told = benchmark.notes[f"answers in round 1, {case.partition(' sockets at once, ')[2]}"]
            lines.append(f"| {case} | {row.shown} | {last.shown} | {told} |")
    return "\n".join(lines)


def growth_block(benchmark: Benchmark) -> str:
    """One table: what is measured down, how many across."""
    return "\n\n".join(_growth_table(benchmark, of_what) for of_what in ("queued", "API processes", "workers"))


def _growth_table(benchmark: Benchmark, of_what: str) -> str:
    cells: dict[str, dict[str, Row]] = {}
    for row in benchmark.rows:
        name, _, count = row.what.rpartition(", ")
        if count.endswith(f" {of_what}"):
            cells.setdefault(name, {})[count.removesuffix(f" {of_what}")] = row
    counts = list(next(iter(cells.values())))
    lines = [f"| {of_what} | {' | '.join(counts)} |", "|---" * (len(counts) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(figure(row.value) for row in rows.values())} |" for name, rows in cells.items()]
    return "\n".join(lines)


def limits_block(growth: Benchmark, drain: Benchmark) -> str:
    """Why the curves look as they do, and what breaks first past one machine."""
    measured = {row.what: row.value for row in [*growth.rows, *drain.rows]}
    api = [measured[f"accepted, jobs/s, {count} API processes"] for count in (1, 2)]
    slow, empty = (
        [f"{measured[f'{name}, {count} workers']:,.0f}" for count in (1, 2, 4)]
        for name in ("jobs of 1 ms drained, jobs/s", "no-op jobs drained, jobs/s")
    )
    commands = measured["Redis commands a job, whole life, those inside scripts counted"]
    scripts = measured["the same with a script counted as one"]
    dollars = [1_000_000 * one / 100_000 * PRICE_PER_100K_COMMANDS for one in (scripts, commands)]
    drained = [measured[f"drained, jobs/s, {depth} queued"] for depth in ("1,000", "1,000,000")]
    redis = [measured[f"Redis CPU a job drained, µs, {depth} queued"] for depth in ("1,000", "1,000,000")]
    why = [
        "With the queue nothing grows but memory: a position is arithmetic, jobs leave at the head, and no script looks at",
        f"more than its batch. A million queued jobs are {measured['Redis memory, MB, 1,000,000 queued']:,.0f} MB.",
        f"Draining them is {1 - drained[1] / drained[0]:.0%} slower than draining a thousand, and that is Redis itself:",
        f"{redis[0]:.0f} µs of its CPU a job become {redis[1]:.0f}, as a job is then memory that no cache holds.",
        f"A second API process adds {api[1] / api[0] - 1:.0%} here: the first one fills a core, and loader, gateway and",
        f"Redis the other. Workers that wait for their jobs scale ({', '.join(slow)} jobs of 1 ms a second with 1, 2 and",
        f"4); empty jobs do until both cores are full ({', '.join(empty)}).",
    ]
    limits = [
        f"**What breaks first past one machine.** *First the API's processor*: one process takes a core at {api[0]:,.0f}",
        "jobs/s. More API machines on one database need no coordination, since ids are random, scripts atomic, and the",
        "sequence is the store's; but each gathers batches of its own, so the same load over more of them means smaller",
        "batches and more work for the store. *Then the store*: all scripts run on one thread of one Redis. A job takes",
        f"{commands:.3g} commands in its life, so Upstash's limit of 10,000 commands a second is {10_000 / commands:,.0f}",
        "jobs/s if those inside scripts count, and no limit to speak of if a script is one",
        f"({scripts:.2g} a job); their documentation does not say which. A million jobs cost",
        f"${dollars[0]:.2f} or ${dollars[1]:.2f}. *Then several databases*: an id can name its own, so that a post goes to",
        "any of them and a poll to the right one, each with its own workers. That gives up one order over everything, and",
        "a position is then one in its database. It is not built here.",
    ]
    return "\n\n".join(textwrap.fill(" ".join(paragraph), 130) for paragraph in (why, limits))


def baseline_block(runs: list[BaselineRun]) -> str:
    """The recorded naive runs under the spike, a row a variant."""
    lines = [
        "| variant | offered | answered in time | failed | p50 | best second |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        if run.shape is not Shape.SPIKE:
            continue
        summary, times = run.summary, run.summary.response_time
        lines.append(
            f"| `{run.variant}` | {summary.planned:,} at {run.rate_per_s:,.0f}/s | {summary.accepted:,} "
            f"| {summary.planned - summary.accepted:,} | {_ms(times.p50_s) if times else '-'} "
            f"| {max(run.answered_per_s()):,.0f}/s |"
        )
    return "\n".join(lines)


def _conditions(benchmark: Benchmark) -> str:
    place = benchmark.place
    versions = ", ".join(f"{name} {version}" for name, version in place.versions.items())
    return (
        f"{place.environment.cores} cores ({place.environment.processor}), Python {place.environment.python}, "
        f"{place.filesystem} with an fsync of {place.fsync_p50_ms:g} ms (p50), durability `always`; {versions}; "
        f"recorded {place.recorded_at[:10]}. Flags of the endpoint that stores nothing, and of plain uvicorn: "
        f"`{benchmark.notes['flags of the endpoint that stores nothing']}`."
    )


def _bound(row: Row, bound: float | None) -> str:
    return "" if bound is None else f"{'≤' if row.less_is_better else '≥'} {bound:,g}"


def _ms(*seconds: float) -> str:
    return " / ".join(f"{one * 1000:,.0f}" for one in seconds) + " ms"
