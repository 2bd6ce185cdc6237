"""A spike's result as a table for people."""

from rich.table import Table

from overload_demo.lab.price import dollars
from overload_demo.lab.result import SpikeResult
from overload_demo.load.summary import LoadSummary


def table(result: SpikeResult) -> Table:
    """All numbers of a result, beside those of the naive API where it was run. Times in ms, memory in MB (10^6)."""
    baseline = result.baseline
    shown = Table(title=_headline(result), title_justify="left", show_edge=False)
    shown.add_column("")
    shown.add_column("queue API", justify="right")
    if baseline:
        shown.add_column(f"naive API ({result.baseline_source})", justify="right")

    def row(name: str, ours: str, theirs: str = "") -> None:
        shown.add_row(name, ours, *([theirs] if baseline else []))

    naive = baseline.summary if baseline else None
    row("offered", f"{result.offered:,}", f"{naive.planned:,}" if naive else "")
    row("accepted (naive: answered in time)", f"{result.accepted:,}", f"{naive.accepted:,}" if naive else "")
    row("errors", _errors(result.errors), _errors(naive.failures) if naive else "")
    row("latency p50 / p99 / p99.9 / max, ms", _times(result.load), _times(naive) if naive else "")
    row(
        "peak queue depth (naive: in flight)",
        f"{result.peak_queue_depth:,}",
        f"{max(baseline.series.in_flight, default=0):,.0f}" if baseline else "",
    )
    row(
        "drain rate, jobs/s (naive: answered)",
        f"{result.drain_rate_per_s:,.0f}",
        f"{baseline.summary.accepted_per_s:,.0f}" if baseline else "",
    )
    row(
        "capacity of the one slot, jobs/s",
        f"{result.capacity_per_s:,.0f}",
        f"{baseline.capacity_per_s:,.0f}" if baseline else "",
    )
    row(
        "drain rate as a share of that",
        _share(result.drain_rate_per_s, result.capacity_per_s),
        _share(baseline.summary.accepted_per_s, baseline.capacity_per_s) if baseline else "",
    )
    row("seconds to empty", f"{result.seconds_to_empty:,.1f}")
    row(
        "done / failed / lost / duplicated",
        f"{result.done:,} / {result.failed:,} / {result.lost:,} / {result.duplicated:,}",
    )
    if result.rest_calls_per_job is not None:
        row("REST calls a job", f"{result.rest_calls_per_job:.3f}")
    if result.store_commands_per_job is not None:
        row("store commands a job (inside scripts too)", f"{result.store_commands_per_job:.1f}")
    if result.upstash_commands is not None:
        row("on Upstash: commands, price", _price(*result.upstash_commands))
    row(f"peak memory, MB ({result.memory_kind})", ", ".join(f"{k} {v:,.0f}" for k, v in result.peak_memory_mb.items()))
    row("load generator", f"{result.load.verdict}", naive.verdict if naive else "")
    return shown


def notes(result: SpikeResult) -> list[str]:
    """What has to be said beside the table."""
    asked = result.conditions
    size = f"{asked.rate_per_s:,.0f} requests/s at the height, {asked.processing_delay_s * 1000:g} ms of work a job"
    said = [f"size: {size}", f"load: {result.load.reason}", *result.load.remarks, f"naive API: {result.baseline_note}"]
    if result.restarts:
        said.append("started again: " + ", ".join(f"{name} {count} times" for name, count in result.restarts.items()))
    return said + result.reasons + result.examples


def _share(rate_per_s: float, capacity_per_s: float) -> str:
    """A rate that may stand beside one of another machine."""
    return f"{rate_per_s / capacity_per_s:.0%}" if capacity_per_s else "unknown"


def _headline(result: SpikeResult) -> str:
    verdict = result.verdict.upper()
    if result.caveat:
        verdict += f", BUT THE COMPARISON SAYS NOTHING: {result.caveat}.\n{verdict}"
    accepted = f"{result.accepted:,} of {result.offered:,} accepted"
    return f"{verdict}: {accepted}, {result.lost:,} lost, {result.duplicated:,} duplicated"


def _price(least: int, most: int) -> str:
    """Both ways of counting: a script as one command, and with the commands inside it."""
    return f"{least:,} to {most:,}, {dollars(least)} to {dollars(most)}"


def _errors(errors: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in errors.items()) or "none"


def _times(load: LoadSummary) -> str:
    times = load.response_time
    if times is None:
        return "none"
    return " / ".join(f"{value * 1000:,.0f}" for value in (times.p50_s, times.p99_s, times.p999_s, times.max_s))
