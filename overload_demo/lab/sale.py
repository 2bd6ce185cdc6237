"""The brief of notebook 09: tickets are on sale from 18:00. A design is played on the real stack, against its promises.

A sale is played in less time than it takes: with all times divided by one number except that of a booking, the same
workers are needed, the queue is so many times shorter, and every share stays as it is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from overload_demo.errors import ConfigurationError
from overload_demo.lab import html_table
from overload_demo.lab.job_log import PromiseRun, check_clients
from overload_demo.lab.spike_plan import OnProgress, SpikePlan
from overload_demo.lab.spike_run import run_spike
from overload_demo.lab.stack import Stack
from overload_demo.load import LoadResult, RetryPolicy, Shape

MOST_ATTEMPTS_EACH = 1.5
SERVED_SHARE = 0.99


@dataclass(frozen=True)
class SaleBrief:
    """``customers_per_s`` arrive for ``sale_s``; a booking keeps a worker for ``job_s``; times in seconds.

    Promised: an accepted booking is done within ``done_within_s``.
    """

    customers_per_s: float
    sale_s: float
    job_s: float
    done_within_s: float


@dataclass(frozen=True)
class SaleDesign:
    """What a student decides: worker processes, the most jobs that may wait (None: any number), and retries."""

    workers: int
    bound: int | None
    retry: RetryPolicy | None = None


@dataclass(frozen=True)
class Promise:
    """A promise, what was measured, and whether it holds."""

    text: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class SaleResult:
    """A sale that was played: its promises, and the run for the figures."""

    design: SaleDesign
    promises: tuple[Promise, ...]
    run: PromiseRun

    @classmethod
    def read(cls, brief: SaleBrief, design: SaleDesign, run: PromiseRun) -> Self:
        """Judge a run by the promises of the brief."""
        result, load = run.result, LoadResult.load((run.result.folder or Path()) / "load.npz").summary()
        slowest_s = float(np.max(run.log.done_s - run.log.accepted_s, initial=0.0))
        each = load.retry.attempts_per_request if load.retry else 1.0
        served = load.retry.accepted if load.retry else load.accepted
        more, share = result.done + result.unclaimed - served, served / load.planned
        most_s = brief.done_within_s
        return cls(
            design,
            (
                Promise("no accepted booking is lost", result.lost_text, result.lost == 0),
                Promise("one booking a customer", f"{max(0, more):,} too many", more <= 0),
                Promise(f"done within {most_s:g} s of the 202", f"slowest {slowest_s:.3g} s", slowest_s <= most_s),
                Promise(
                    f"{100 * SERVED_SHARE:g} % of the customers are served",
                    f"{100 * share:.1f} %",
                    share >= SERVED_SHARE,
                ),
                Promise(
                    f"at most {MOST_ATTEMPTS_EACH:g} attempts a customer", f"{each:.2f}", each <= MOST_ATTEMPTS_EACH
                ),
            ),
            run,
        )

    def _repr_html_(self) -> str:
        rows = [("✓" if one.holds else "✗", one.text, one.measured) for one in self.promises]
        return html_table(rows, ("", "promise", "measured"), self.run.name)

    def __repr__(self) -> str:
        lines = [f"{'✓' if one.holds else '✗'} {one.text}: {one.measured}" for one in self.promises]
        return "\n".join([self.run.name, *lines])


async def run_sale(brief: SaleBrief, design: SaleDesign, on_progress: OnProgress | None = None) -> SaleResult:
    """Play a sale on a stack of its own, with processes for all parts; cancellable like :func:`run_spike`.

    Raises :class:`ConfigurationError` for a design that cannot be played, and the errors of :func:`run_spike`.
    """
    bound = design.bound
    if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int) or bound < 1):
        raise ConfigurationError(f"bound: None or a whole number of jobs, at least 1, not {bound!r}")
    check_clients(design.retry)
    requests = round(brief.customers_per_s * brief.sale_s)
    plan = SpikePlan(requests, brief.customers_per_s, Shape.CONSTANT, baseline="none", retry=design.retry)
    settings: dict[str, Any] = {"overload_max_queue_depth": bound} if bound is not None else {}
    stack = await Stack.start(
        placement="process",
        processing_delay_s=brief.job_s,
        workers=design.workers,
        name="notebook-09",
        **settings,
    )
    async with stack:
        result = await run_spike(stack, plan, on_progress)
    name = f"{design.workers} workers, {'no bound' if bound is None else f'bound {bound:,}'}"
    return SaleResult.read(brief, design, PromiseRun.read(name, result, brief.done_within_s))
