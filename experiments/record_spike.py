"""Record the main job: copy a run of ``overload-demo spike`` to ``experiments/results`` and set the README's numbers.

``python -m experiments.record_spike RUN_FOLDER`` copies; without a folder it only writes the README's blocks anew from
what is recorded. A test compares them, so the README cannot drift from the recorded runs.
"""

import shutil
import statistics
from pathlib import Path
from typing import Annotated

import typer

from experiments.bench.record import Benchmark
from overload_demo.lab.baseline import BaselineRun, recorded_baseline
from overload_demo.lab.result import SpikeResult
from overload_demo.load import Shape

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"


def main(run: Annotated[Path | None, typer.Argument(help="run folder of `overload-demo spike`")] = None) -> None:
    """Record a spike and bring the README up to date."""
    if run is not None:
        shutil.copy(run / "result.json", RESULTS / "spike.json")
        shutil.copy(run / "figure.png", RESULTS / "spike.png")
    README.write_text(with_numbers(README.read_text()))


def with_numbers(readme: str) -> str:
    """The README with its generated blocks made from the recorded runs."""
    spike = SpikeResult.read(RESULTS / "spike.json")
    readme = _replaced(readme, "numbers", spike_block(spike))
    readme = _replaced(readme, "acceptance", acceptance_block(Benchmark.read("acceptance")))
    return _replaced(readme, "baseline", baseline_block(recorded_baseline(RESULTS)))


def spike_block(result: SpikeResult) -> str:
    """The recorded spike in a table, ours beside the naive API's."""
    times, naive = result.load.response_time, result.baseline
    assert times is not None
    assert naive is not None
    assert result.rest_calls_per_job is not None
    lost = naive.summary.planned - naive.summary.accepted
    theirs = naive.summary.response_time
    rows = [
        (
            "requests fired",
            f"{result.offered:,}",
            f"{naive.summary.planned:,} (stopped after {naive.max_duration_s:g} s)",
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
        f"{result.rest_calls_per_job:.3f} REST calls a job; load generator: {result.load.verdict}, "
        f"against the naive API: {naive.summary.verdict}.",
    ]
    return "\n".join(lines)


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
            f"| {max(run.series.accepted_per_s):,.0f}/s |"
        )
    return "\n".join(lines)


def acceptance_block(benchmark: Benchmark) -> str:
    """How fast jobs are taken in, a row a crowd and loader."""
    place = benchmark.place
    lines = [
        f"`{place.command}`, recorded {place.recorded_at[:10]}:",
        "",
        "| | accepted/s, durable | storing nothing, /s | ratio (min to max of the pairs) |",
        "|---|---|---|---|",
    ]
    for row in benchmark.rows:
        ours, theirs = statistics.median(row.ours), statistics.median(row.theirs)
        lines.append(f"| {row.what} | {ours:,.0f} | {theirs:,.0f} | {row.shown} |")
    told = "; ".join(f"{name} {value}" for name, value in benchmark.notes.items())
    return "\n".join([*lines, "", f"{place.environment.cores} cores, {place.filesystem}; {told}."])


def _ms(*seconds: float) -> str:
    return " / ".join(f"{one * 1000:,.0f}" for one in seconds) + " ms"


def _replaced(text: str, name: str, block: str) -> str:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{block}\n{end}{after}"


if __name__ == "__main__":
    typer.run(main)
