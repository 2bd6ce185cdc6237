"""Progress bars of a spike or of steps, in a terminal or a notebook."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from overload_demo.lab.naive_api import OnStepProgress, StepProgress
from overload_demo.lab.spike_plan import OnProgress, SpikeProgress

_Show = Callable[[Sequence[str]], None]
_STAGES = {
    "calibrate": "calibrating: measuring what this machine accepts",
    "baseline": "the same load on the naive API",
    "reconcile": "reconciling every accepted id",
    "over": "over",
}


@contextmanager
def spike_progress(requests: int, console: Console | None = None) -> Iterator[OnProgress]:
    """Show two bars, accepted and done, for the length of the block; yield the callback for :func:`run_spike`.

    In a notebook the doubts about the result, such as "not absorbed" or "generator-bound", stay below the bars.
    """
    columns = (TextColumn("{task.description:<9}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, TextColumn("{task.fields[note]}"), console=console, refresh_per_second=5)
    accepted = bars.add_task("accepted", total=requests, note="")
    done = bars.add_task("done", total=requests, note="")
    with _displayed(bars) as show:

        def report(progress: SpikeProgress) -> None:
            load = progress.load
            note = _STAGES.get(progress.stage) or (
                f"queue {progress.queue_depth:,}, draining {progress.drain_rate_per_s:,.0f}/s"
            )
            bars.update(done, note=note)
            if load and progress.stage in ("fire", "drain", "reconcile"):
                bars.update(accepted, completed=load.accepted, note=f"{load.errors:,} errors" if load.errors else "")
                bars.update(done, completed=progress.settled)
            show(progress.doubts)

        yield report
        bars.update(done, note="")


@contextmanager
def steps_progress(steps: int, console: Console | None = None) -> Iterator[OnStepProgress]:
    """Show a bar over all steps for the length of the block; yield the callback for :func:`load_steps`."""
    columns = (TextColumn("steps"), BarColumn(24), TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
    bars = Progress(*columns, console=console, refresh_per_second=5)
    bar = bars.add_task("steps", total=steps, note="starting the naive API")
    with _displayed(bars) as show:

        def report(progress: StepProgress) -> None:
            load = progress.load
            counts = f"{load.accepted:,} answered, {load.failed:,} failed, {load.in_flight:,} waiting"
            note = f"step {progress.number} of {progress.steps}: {progress.offered_per_s:,.0f}/s, {counts}"
            bars.update(bar, completed=progress.number - 1 + (load.accepted + load.errors) / load.requests, note=note)
            show(())

        yield report
        bars.update(bar, completed=steps, note="")


@contextmanager
def _displayed(bars: Progress) -> Iterator[_Show]:
    """Display the bars. In a notebook, replace one output, so that a saved notebook keeps it (rich's widget does not).

    The yielded function shows doubts below them; in a terminal the command prints them.
    """
    if not bars.console.is_jupyter:
        with bars:
            yield lambda _: None
        return
    from IPython.display import display  # exists only in a notebook

    lines: list[Text] = []

    def picture() -> Table:
        whole = Table.grid()  # unlike a Group, it is displayed in a notebook
        whole.add_row(bars.make_tasks_table(bars.tasks))
        for line in lines:
            whole.add_row(line)
        return whole

    def show(doubts: Sequence[str]) -> None:
        lines[:] = [Text(f"! {doubt}", style="bold red") for doubt in doubts]
        shown.update(picture())

    shown = display(picture(), display_id=True)  # type: ignore[no-untyped-call]
    try:
        yield show
    finally:
        shown.update(picture())
