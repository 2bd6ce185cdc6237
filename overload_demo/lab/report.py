"""A spike's result as a table, and what one costs: REST calls, store commands, and Upstash's bill.

The vendor does not document whether a script counts as one command or with all commands it calls. Both are reported.
"""

import asyncio
import contextlib
from dataclasses import dataclass

from rich.table import Table

from overload_demo.errors import StoreError
from overload_demo.lab import about
from overload_demo.lab.result import SpikeResult
from overload_demo.lab.simulated_cloud import count_commands
from overload_demo.lab.stack import Stack
from overload_demo.load.load_result import LoadSummary
from overload_demo.rest.client import Upstash
from overload_demo.store.data_dir import NODE
from overload_demo.worker.lease_renewer import BATCH_TARGET_S

# upstash.com/pricing/redis, 2026-08: pay as you go in US dollars, and the free commands of a month.
PRICE_PER_100K_COMMANDS = 0.20
FREE_COMMANDS_PER_MONTH = 500_000

# A job's whole life over a round trip of 50 ms, rounded up from experiments/results/spike_far.json (a test compares
# them). In that run the worker leased its largest batches.
CALLS_PER_JOB = 0.05
SCRIPTS_PER_JOB = 0.1
COMMANDS_PER_JOB = 7.0
JOBS_PER_LEASE = 125.0
COMMANDS_PER_SCRIPT = 12.0  # independent of its jobs, about: lua/lease.lua and lua/settle.lua


def table(result: SpikeResult) -> Table:
    """Return all numbers of a result, beside those of the naive API if it was run. Times in ms, memory in 10^6 B."""
    verdict = result.verdict.upper()
    if result.caveat:
        verdict += f", BUT THE COMPARISON SHOWS NOTHING: {result.caveat}.\n{verdict}"
    accepted = f"{result.accepted:,} of {result.offered:,} accepted"
    title = f"{verdict}: {accepted}, {result.lost_text}, {result.duplicated:,} duplicated"
    rates, own = (result.drain_rate_per_s, result.capacity_per_s), _own_rows(result)
    columns = {"queue API": _column(result.load, result.errors, result.peak_queue_depth, *rates, own)}
    if run := result.baseline:
        load, peak = run.summary, max(run.series.in_flight, default=0)
        naive = _column(load, load.failures, peak, load.accepted_per_s, run.capacity_per_s, {})
        columns[f"naive API ({result.baseline_source})"] = naive
    shown = Table("", title=title, title_justify="left", show_edge=False)
    for head in columns:
        shown.add_column(head, justify="right")
    for name in columns["queue API"]:
        shown.add_row(name, *(column.get(name, "") for column in columns.values()))
    return shown


def notes(result: SpikeResult) -> list[str]:
    """Return the lines that belong below the table."""
    asked = result.conditions
    size = f"{asked.rate_per_s:,.0f} requests/s at the height, {asked.processing_delay_s * 1000:g} ms of work a job"
    lines = [f"size: {size}", f"load: {result.load.reason}", *result.load.remarks, f"naive API: {result.baseline_note}"]
    if result.restarts:
        lines.append("restarted: " + ", ".join(f"{name} {count} times" for name, count in result.restarts.items()))
    return lines + result.reasons + result.examples


def _column(
    load: LoadSummary, errors: dict[str, int], peak: float, drain_per_s: float, best_per_s: float, own: dict[str, str]
) -> dict[str, str]:
    """Return the rows of a column. A rate as a share of the capacity is comparable between machines."""
    is_known = bool(drain_per_s or not load.accepted)  # 0.0 without two samples of progress
    share = f"{100 * drain_per_s / best_per_s:.0f} %" if is_known and best_per_s else "unknown"
    times = load.response_time
    latency = (times.p50_s, times.p99_s, times.p999_s, times.max_s) if times else ()
    return {
        "offered": f"{load.planned:,}",
        "accepted (naive: answered in time)": f"{load.accepted:,}",
        "errors": ", ".join(f"{count:,} {name}" for name, count in errors.items()) or "none",
        "latency p50 / p99 / p99.9 / max, ms": " / ".join(f"{at_s * 1000:,.0f}" for at_s in latency) or "none",
        "peak queue depth (naive: in flight)": f"{peak:,.0f}",
        "drain rate, jobs/s (naive: answered)": about(drain_per_s) if is_known else "unknown",
        "capacity of the one slot, jobs/s": about(best_per_s),
        "drain rate as a share of that": share,
        **own,
        "load generator": load.verdict,
    }


def _own_rows(result: SpikeResult) -> dict[str, str]:
    """Return the rows that only the queue API has; a number that was not counted has none."""
    calls, commands, billed = result.rest_calls_per_job, result.store_commands_per_job, result.upstash_commands
    memory = ", ".join(f"{name} {megabytes:,.0f}" for name, megabytes in result.peak_memory_mb.items())
    ends = f"{result.done:,} / {result.failed:,} / {result.lost:,} / {result.duplicated:,}"
    bill = billed and f"{billed[0]:,} to {billed[1]:,}, {dollars(billed[0])} to {dollars(billed[1])}"
    rows = {
        "seconds to empty": "not empty" if result.unended else f"{result.seconds_to_empty:,.1f}",
        "done / failed / lost / duplicated": ends,
        "REST calls a job": None if calls is None else f"{calls:.3f}",
        "store commands a job (inside scripts too)": None if commands is None else f"{commands:.1f}",
        "on Upstash: commands, price": bill,
        f"peak memory, MB ({result.memory_kind})": memory,
    }
    return {name: text for name, text in rows.items() if text is not None}


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a run: REST calls, and commands with a script counted as one, or with all it calls."""

    calls: int
    least_commands: int
    most_commands: int

    @property
    def text(self) -> str:
        """The estimate in one line."""
        least, most = (
            f"{100 * commands / FREE_COMMANDS_PER_MONTH:.1f} % of the {FREE_COMMANDS_PER_MONTH:,} free in a month, "
            f"{dollars(commands)}"
            for commands in (self.least_commands, self.most_commands)
        )
        return (
            f"about {self.calls:,} calls: {self.least_commands:,} commands where a script counts as one ({least}), "
            f"{self.most_commands:,} where those inside it count too ({most}); the vendor does not document which"
        )


@dataclass(frozen=True, kw_only=True)
class Bill(Estimate):
    """What so many jobs have cost, counted by the database: posted, done in ``seconds``, each result asked for."""

    name: str
    jobs: int
    seconds: float

    @property
    def commands_per_job(self) -> tuple[float, float]:
        """Commands a job: a script counted as one, and with all it calls."""
        return self.least_commands / self.jobs, self.most_commands / self.jobs


def bills(*rows: Bill) -> Table:
    """Return bills as a table, and what they come to by the prices above."""
    shown = Table("", *(one.name for one in rows), show_edge=False)
    ways = "a script counted as one", "those inside it counted too"
    per_job = [one.commands_per_job for one in rows]
    shown.add_row("jobs", *(f"{one.jobs:,}" for one in rows))
    shown.add_row("jobs done a second, from the first POST", *(f"{one.jobs / one.seconds:,.0f}" for one in rows))
    shown.add_row("REST calls a job", *(f"{one.calls / one.jobs:.2f}" for one in rows))
    for at, way in enumerate(ways):
        shown.add_row(f"commands a job, {way}", *(f"{each[at]:.2f}" for each in per_job))
    for at, way in enumerate(ways):
        prices = (dollars(round(100_000 * each[at])) for each in per_job)
        shown.add_row(f"100,000 jobs, {way}", *prices)
    return shown


def estimate(jobs: int, job_s: float) -> Estimate:
    """Estimate the cost of ``jobs`` that take ``job_s`` seconds each: slow ones are leased and settled singly."""
    per_lease = min(JOBS_PER_LEASE, max(1.0, BATCH_TARGET_S / max(job_s, 1e-6)))
    more = 1 / per_lease - 1 / JOBS_PER_LEASE  # exchanges a job; each settles and leases
    return Estimate(
        round(jobs * (CALLS_PER_JOB + more)),
        round(jobs * (SCRIPTS_PER_JOB + 2 * more)),
        round(jobs * (COMMANDS_PER_JOB + 2 * more * COMMANDS_PER_SCRIPT)),
    )


def dollars(commands: int) -> str:
    """Return the pay-as-you-go price of so many commands."""
    price = commands / 100_000 * PRICE_PER_100K_COMMANDS
    return f"${price:.2f}" if price >= 0.1 else f"${price:.3f}"


async def cost_per_job(
    stack: Stack, clients: list[Upstash], jobs: int, counting: dict[str, int]
) -> dict[str, float | None]:
    """Return what each of ``jobs`` has cost a fresh stack until now, as fields of ``SpikeResult``.

    ``counting`` are the process ids it began with, by role. A count is None, rather than too small, once the process
    that kept it was killed.
    """
    now = stack.process_ids()
    replaced = {role for role in counting | now if counting.get(role) != now.get(role)}
    servers = {role for role in now if role == "redis" or role.startswith(NODE)}
    cost: dict[str, float | None] = {"rest_calls_per_job": None, "store_commands_per_job": None}
    if not replaced - {"gateway"} - servers:
        stats = await asyncio.to_thread(stack.get, "/queue/stats")
        cost["rest_calls_per_job"] = round(stats["rest_calls"] / jobs, 4)
    if "redis" in servers - replaced:  # of a cluster's nodes each would count its own
        with contextlib.suppress(StoreError, TypeError):
            texts = [await one.command("INFO", "commandstats", repeatable=True) for one in clients]
            scripts, commands = map(sum, zip(*map(count_commands, texts), strict=True))
            cost |= {"store_scripts_per_job": round(scripts / jobs, 4)}
            cost |= {"store_commands_per_job": round(commands / jobs, 2)}
    return cost
