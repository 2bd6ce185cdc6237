"""What a spike shall be, how far it is, and the progress bars of it in a terminal or a notebook."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from overload_demo.lab.result import SpikeResult
from overload_demo.load import LoadPlan, LoadProgress, RetryPolicy, Shape
from overload_demo.load.plan import CALM_SHARE

SpikeStage = Literal["calibrate", "fire", "drain", "reconcile", "baseline", "over"]

MIN_DELAY_S = 0.0004  # chosen: the default run takes about two minutes on two cores
OVERLOAD = 2.0  # chosen: the ratio of the arrival rate to the slot's capacity in a sized spike
# Upstash is not calibrated, as calls cost money. The vendor's limit of 10,000 commands a second allows this rate, while
# a worker 50 ms away drains some 600 a second, so that the queue grows.
UPSTASH_RATE_PER_S = 1_000.0

# The naive API's part of the comparison.
BASELINE_TIMEOUT_S = 10.0
BASELINE_SPIKE_S = 3 * BASELINE_TIMEOUT_S  # at OVERLOAD 2, clients that arrive 10 s into the spike wait 10 s

_NOTES = {
    "calibrate": "calibrating: measuring what this machine accepts",
    "baseline": "the same load on the naive API",
    "reconcile": "reconciling every accepted id",
    "over": "over",
}


@dataclass(frozen=True)
class SpikePlan:
    """What to send. ``rate_per_s`` None: 60 % of a 3 s calibration on this machine, ``UPSTASH_RATE_PER_S`` on Upstash.

    With ``sizes_work`` a calibration also sets the work of one job (:func:`sized_delay_s`). ``expires_in_s`` is the
    deadline of every job: a job not started by then fails and is never run. With ``retry``, clients repeat what fails
    or is late, each accepted attempt counting as a job. All times are in seconds.
    """

    requests: int = 100_000
    rate_per_s: float | None = None
    shape: Shape = Shape.SPIKE
    processes: int | None = None
    seed: int = 0
    timeout_s: float = 30.0
    expires_in_s: float | None = None
    retry: RetryPolicy | None = None
    sizes_work: bool = False
    baseline: Literal["live", "recorded", "none"] = "live"
    command: str = "overload-demo spike"

    def load(self, url: str, rate_per_s: float) -> LoadPlan:
        """Return the load on the API at ``url``. Raises :class:`ConfigurationError` if it is invalid."""
        names = ("requests", "shape", "seed", "timeout_s", "expires_in_s", "processes", "retry")
        return LoadPlan(url, rate_per_s=rate_per_s, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class SpikeProgress:
    """How far a spike is, in jobs; ``load`` holds the clients' numbers, None before the first request.

    ``enqueued`` counts the jobs so far, None unless clients retry: ``load`` then counts requests with a result.
    In stage "baseline", ``queue_depth`` is the naive API's requests in flight, ``settled`` its responses. ``lost`` is
    set in the last report of stage "reconcile". Stage "over" is reported once, with the ``result``.
    """

    stage: SpikeStage
    offered: int
    load: LoadProgress | None = None
    queue_depth: int = 0
    oldest_age_s: float = 0.0
    settled: int = 0
    drain_rate_per_s: float = 0.0
    enqueued: int | None = None
    lost: int | None = None
    result: SpikeResult | None = None

    @classmethod
    def of_baseline(cls, load: LoadProgress) -> "SpikeProgress":
        """Convert the progress of a load on the naive API."""
        return cls("baseline", load.requests, load, queue_depth=load.in_flight, settled=load.accepted)


OnProgress = Callable[[SpikeProgress], None]
OnStepProgress = Callable[[int, float, LoadProgress], None]  # the number of the step, from 1, its rate, and its load


def sized_delay_s(rate_per_s: float) -> float:
    """Return the work of one job, seconds, with which the slot's capacity is at most half of ``rate_per_s``.

    In steps of 0.1 ms, never below ``MIN_DELAY_S``.
    """
    return max(MIN_DELAY_S, math.ceil(OVERLOAD / rate_per_s * 10_000) / 10_000)


def baseline_fires_s(plan: LoadPlan) -> float:
    """Return how long a load is sent to the naive API, seconds: to the end of ``plan``, or 30 s into the spike.

    The time before the rate exceeds half of its height (the calm of a spike, the start of a ramp) is added.
    """
    intended_s = plan.schedule()
    before = {Shape.SPIKE: CALM_SHARE, Shape.RAMP: 0.25}.get(plan.shape, 0.0)  # share of the requests
    begins_s = float(intended_s[int(before * intended_s.size)])
    return round(min(float(intended_s[-1]), begins_s + BASELINE_SPIKE_S) + 0.1, 1)


@contextmanager
def spike_progress(requests: int, console: Console | None = None) -> Iterator[OnProgress]:
    """Show two bars, accepted and done, for the length of the block; yield the callback for :func:`run_spike`.

    In a notebook the doubts about the result, such as "not absorbed" or "generator-bound", stay below the bars.
    """
    columns = TextColumn("{task.description:<9}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn()
    bars = Progress(*columns, TextColumn("{task.fields[note]}"), console=console, refresh_per_second=5)
    accepted = bars.add_task("accepted", total=requests, note="")
    done = bars.add_task("done", total=requests, note="")
    with _displayed(bars) as show:

        def report(progress: SpikeProgress) -> None:
            load, rate = progress.load, f"{progress.drain_rate_per_s:,.0f}/s"
            note = _NOTES.get(progress.stage, f"queue {progress.queue_depth:,}, draining {rate}")
            bars.update(done, note=note)
            if load and progress.stage in ("fire", "drain", "reconcile"):
                bars.update(accepted, completed=load.accepted, note=f"{load.errors:,} errors" if load.errors else "")
                bars.update(done, completed=progress.settled)
            show(progress.result.doubts if progress.result else ())

        yield report
        bars.update(done, note="")


@contextmanager
def steps_progress(steps: int, console: Console | None = None) -> Iterator[OnStepProgress]:
    """Show a bar over all steps for the length of the block; yield the callback for :func:`load_steps`."""
    columns = BarColumn(12), TimeElapsedColumn(), TextColumn("{task.fields[note]}")  # fits beside a file browser
    bars = Progress(*columns, console=console, refresh_per_second=5)
    bar = bars.add_task("steps", total=steps, note="starting")
    with _displayed(bars) as show:

        def report(number: int, rate_per_s: float, load: LoadProgress) -> None:
            counts = f"{load.accepted:,} answered, {load.failed:,} failed, {load.in_flight:,} waiting"
            note = f"step {number} of {steps}: {rate_per_s:,.0f}/s, {counts}"
            bars.update(bar, completed=number - 1 + (load.accepted + load.errors) / load.requests, note=note)
            show(())

        yield report
        bars.update(bar, completed=steps, note="all steps done")


@contextmanager
def _displayed(bars: Progress) -> Iterator[Callable[[Sequence[str]], None]]:
    """Display the bars. In a notebook, replace one output, so that a saved notebook keeps it (rich's widget does not).

    The yielded function shows doubts below them; in a terminal the command prints them.
    """
    if not bars.console.is_jupyter:
        with bars:
            yield lambda _: None
        return
    from IPython.display import display  # exists only in a notebook

    doubts: list[Text] = []

    def picture() -> Table:
        whole = Table.grid()  # unlike a Group, it is displayed in a notebook
        whole.add_row(bars.make_tasks_table(bars.tasks))
        for line in doubts:
            whole.add_row(line)
        return whole

    def show(found: Sequence[str]) -> None:
        doubts[:] = [Text(f"! {doubt}", style="bold red") for doubt in found]
        shown.update(picture())

    shown = display(picture(), display_id=True)  # type: ignore[no-untyped-call]
    try:
        yield show
    finally:
        shown.update(picture())
