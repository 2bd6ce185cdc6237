"""A spike's result as a table, and what Upstash bills for one.

The vendor does not document whether a script counts as one command or with all commands it calls. Both are reported.
"""

from dataclasses import dataclass

from rich.table import Table

from overload_demo.lab.result import SpikeResult
from overload_demo.load.load_result import LoadSummary
from overload_demo.worker.loop import BATCH_TARGET_S

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
    shown = Table("", title=_headline(result), title_justify="left", show_edge=False)
    columns = {"queue API": _queue_column(result)}
    if run := result.baseline:
        load, peak = run.summary, max(run.series.in_flight, default=0)
        naive = _shared_rows(load, load.failures, peak, load.accepted_per_s, run.capacity_per_s)
        columns[f"naive API ({result.baseline_source})"] = naive
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


def _queue_column(result: SpikeResult) -> dict[str, str]:
    rates = result.drain_rate_per_s, result.capacity_per_s
    column = _shared_rows(result.load, result.errors, result.peak_queue_depth, *rates)
    verdict = column.pop("load generator")
    ends = f"{result.done:,} / {result.failed:,} / {result.lost:,} / {result.duplicated:,}"
    column |= {"seconds to empty": f"{result.seconds_to_empty:,.1f}", "done / failed / lost / duplicated": ends}
    if result.rest_calls_per_job is not None:
        column["REST calls a job"] = f"{result.rest_calls_per_job:.3f}"
    if result.store_commands_per_job is not None:
        column["store commands a job (inside scripts too)"] = f"{result.store_commands_per_job:.1f}"
    if result.upstash_commands is not None:
        least, most = result.upstash_commands
        column["on Upstash: commands, price"] = f"{least:,} to {most:,}, {dollars(least)} to {dollars(most)}"
    memory = ", ".join(f"{name} {megabytes:,.0f}" for name, megabytes in result.peak_memory_mb.items())
    return column | {f"peak memory, MB ({result.memory_kind})": memory, "load generator": verdict}


def _shared_rows(
    load: LoadSummary, errors: dict[str, int], peak: float, drain_rate_per_s: float, capacity_per_s: float
) -> dict[str, str]:
    """Return the rows of both columns. A rate as a share of the capacity is comparable between machines."""
    latency = "none"
    if times := load.response_time:
        percentiles = (times.p50_s, times.p99_s, times.p999_s, times.max_s)
        latency = " / ".join(f"{value * 1000:,.0f}" for value in percentiles)
    return {
        "offered": f"{load.planned:,}",
        "accepted (naive: answered in time)": f"{load.accepted:,}",
        "errors": ", ".join(f"{count:,} {name}" for name, count in errors.items()) or "none",
        "latency p50 / p99 / p99.9 / max, ms": latency,
        "peak queue depth (naive: in flight)": f"{peak:,.0f}",
        "drain rate, jobs/s (naive: answered)": f"{drain_rate_per_s:,.0f}",
        "capacity of the one slot, jobs/s": f"{capacity_per_s:,.0f}",
        "drain rate as a share of that": f"{drain_rate_per_s / capacity_per_s:.0%}" if capacity_per_s else "unknown",
        "load generator": load.verdict,
    }


def _headline(result: SpikeResult) -> str:
    verdict = result.verdict.upper()
    if result.caveat:
        verdict += f", BUT THE COMPARISON SHOWS NOTHING: {result.caveat}.\n{verdict}"
    accepted = f"{result.accepted:,} of {result.offered:,} accepted"
    return f"{verdict}: {accepted}, {result.lost:,} lost, {result.duplicated:,} duplicated"


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
            f"{commands / FREE_COMMANDS_PER_MONTH:.1%} of the {FREE_COMMANDS_PER_MONTH:,} free in a month, "
            f"{dollars(commands)}"
            for commands in (self.least_commands, self.most_commands)
        )
        return (
            f"about {self.calls:,} calls: {self.least_commands:,} commands where a script counts as one ({least}), "
            f"{self.most_commands:,} where those inside it count too ({most}); the vendor does not document which"
        )


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
