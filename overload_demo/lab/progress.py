"""Progress of a spike, in a terminal and in a notebook alike."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from overload_demo.lab.spike import OnProgress, SpikeProgress

_WORDS = {
    "calibrate": "calibrating: how much does this machine take?",
    "baseline": "the same load on the naive API",
    "reconcile": "reconciling every accepted id",
}


@contextmanager
def spike_progress(requests: int, console: Console | None = None) -> Iterator[OnProgress]:
    """Show two bars, accepted and done, for the length of the block; yields what :func:`run_spike` reports to."""
    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, refresh_per_second=5) as bars:
        accepted = bars.add_task("accepted", total=requests, note="")
        done = bars.add_task("done", total=requests, note="")

        def report(progress: SpikeProgress) -> None:
            errors = f"{progress.errors:,} errors" if progress.errors else ""
            note = _WORDS.get(progress.stage) or (
                f"queue {progress.queue_depth:,}, draining {progress.drain_rate_per_s:,.0f}/s"
            )
            if progress.stage in ("calibrate", "baseline"):
                bars.update(done, note=note)
                return
            bars.update(accepted, completed=progress.accepted, note=errors)
            bars.update(done, completed=progress.settled, note=note)

        yield report
