"""The fault matrix: rows, how they run, and how they are judged."""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.fault_matrix import RowResult
from tests.history.checker import Verdict, check, longest_gap_s, longest_loss_s, longest_wait_s, recoveries
from tests.history.environments import Environment, plain
from tests.history.machine import NotHereError
from tests.history.scenario import Scenario

Fault = Callable[[Scenario], object]
# Violations that a store may cause by losing acknowledged writes; all are counted and reported.
LOSS_OF_WRITES = frozenset(
    {
        "lost",
        "unknown id",
        "illegal transition",
        "position grew",
        "not conserved",
        "repeated without a fault",
        "result changed",
        "out of order",
    }
)


def nothing(_: Scenario) -> None:
    """Do nothing: the fault is in ``around`` or in the setup of the stack."""


@dataclass(frozen=True)
class Row:
    """One fault, repeated under load.

    ``fault`` is called about every ``every_s`` seconds; ``around`` holds while the load runs, ``afterwards`` is called
    when it has ended. ``fired`` counts the faults where calls of ``fault`` do not. ``recovers_by`` is the sign of
    recovery: the next "start" of a job, or the next "ok" to a request sent after the fault. ``may`` are violations that
    this fault is allowed to cause; they are counted and reported. With ``runs_once`` no job may be started twice; with
    ``all_accepted`` every request must be accepted. ``reports_gaps``: the note holds the longest time without an
    acceptance, and the longest wait of one client.
    """

    name: str
    what: str
    how: str
    fault: Fault = nothing
    every_s: float = 0.5
    jobs: int = 1500
    setup: dict[str, Any] = field(default_factory=dict)
    environment: Callable[[Path], AbstractContextManager[Environment]] = plain
    around: Callable[[Scenario], AbstractContextManager[object]] = lambda run: contextlib.nullcontext()
    afterwards: Fault = nothing
    fired: Callable[[Scenario], int] | None = None
    recovers_by: str = ""
    may: frozenset[str] = frozenset()
    runs_once: bool = False
    all_accepted: bool = False
    foreign_entries: bool = False
    reports_gaps: bool = False
    also: Callable[[Scenario, Verdict], str] = lambda run, verdict: ""

    def run(self, folder: Path, seed: int, *, share: float = 1.0) -> RowResult:
        """Run the row in ``folder`` and check the history; a short run takes only a ``share`` of the jobs."""
        since = time.monotonic()
        result = RowResult(name=self.name, what=self.what, how=self.how, seed=seed)
        try:
            with (
                self.environment(folder) as environment,
                Scenario(folder, seed=seed, environment=environment, **self.setup) as run,
            ):
                with self.around(run):
                    times, _ = run.fire(int(self.jobs * share), lambda: self.fault(run), every_s=self.every_s)
                self.afterwards(run)
                history = run.history()
                verdict = check(history, workers=run.worker_count, has_foreign_entries=self.foreign_entries)
                result.fired = self.fired(run) if self.fired else times
                result.note = environment.describe()
                result.wrong = self._judge(run, verdict, result.fired)
        except NotHereError as error:
            result.not_here = str(error)
            return result
        except Exception as error:
            result.wrong = f"{type(error).__name__}: {error}"
            return result
        result.exposed = verdict.exposed_jobs
        result.attempted, result.accepted = verdict.counts["attempted"], verdict.counts["acknowledged"]
        result.refused, result.unknown = verdict.counts["refused"], verdict.counts["unknown"]
        result.lost, result.duplicated = len(verdict.wrong.get("lost", [])), verdict.counts["duplicated"]
        result.allowed = {kind: len(found) for kind, found in verdict.wrong.items() if kind in self.may}
        result.recovery_s = recoveries(history, self.recovers_by) if self.recovers_by else []
        result.longest_loss_s = longest_loss_s(history)
        if self.reports_gaps:
            without, with_key = longest_gap_s(history, keyed=False), longest_gap_s(history, keyed=True)
            result.note = (
                f"longest gap in acceptance {without:.2f} s, of posts with a key {with_key:.2f} s; "
                f"longest wait for a 202 {longest_wait_s(history):.2f} s"
            )
        result.seconds = time.monotonic() - since
        return result

    def _judge(self, run: Scenario, verdict: Verdict, fired: int) -> str:
        """Return why the row fails; "" if it holds."""
        counts, wrong = verdict.counts, []
        forbidden = {kind: found for kind, found in verdict.wrong.items() if kind not in self.may}
        wrong += [f"{kind} {len(found)} ({found[0]})" for kind, found in forbidden.items()]
        if not fired:
            wrong.append("the fault never happened")
        if not verdict.exposed_jobs:
            wrong.append("no job was exposed to it")
        if self.runs_once and counts["started again"]:
            wrong.append(f"{counts['started again']} jobs were started again although no process was killed")
        if self.all_accepted and counts["acknowledged"] != counts["attempted"]:
            wrong.append(f"{counts['attempted'] - counts['acknowledged']} requests were not accepted")
        return "; ".join([*wrong, *filter(None, [self.also(run, verdict)])])
