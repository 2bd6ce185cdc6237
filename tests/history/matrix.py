"""The fault matrix: rows, how they run, and how they are judged."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.fault_matrix import RowResult
from tests.history.checker import Verdict, check, longest_gap_s, longest_loss_s, recoveries
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

SUMS = ("runs", "fired", "exposed", "attempted", "accepted", "refused", "unknown", "lost", "duplicated", "seconds")
LONGEST = ("longest_loss_s", "longest_gap_s", "longest_keyed_gap_s")


def nothing(_: Scenario) -> None:
    """Do nothing: the fault is in ``around`` or in the setup of the stack."""


@dataclass(frozen=True)
class Row:
    """One fault, repeated under load.

    ``fault`` is called about every ``every_s`` seconds; ``around`` holds while the load runs, ``afterwards`` is called
    when it has ended. ``fired`` counts the faults where calls of ``fault`` do not. ``recovers_by`` is the sign of
    recovery: the next "start" of a job, or the next "ok" to a request sent after the fault. ``may`` are violations that
    this fault is allowed to cause; they are counted and reported. With ``runs_once`` no job may be started twice; with
    ``all_accepted`` every request must be accepted. ``reports_gaps``: the result holds the longest time
    without an acceptance.
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
            result.longest_gap_s = longest_gap_s(history, keyed=False)
            result.longest_keyed_gap_s = longest_gap_s(history, keyed=True)
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


def summed(runs: list[RowResult]) -> RowResult:
    """Add up several runs of one row; a failure names the seed that repeats it."""
    fields: dict[str, object] = {name: sum(getattr(run, name) for run in runs) for name in SUMS}
    fields |= {name: max(getattr(run, name) for run in runs) for name in LONGEST}
    fields["recovery_s"] = [one for run in runs for one in run.recovery_s]
    fields["allowed"] = dict(sum((Counter(run.allowed) for run in runs), Counter[str]()))
    fields["wrong"] = "; ".join(f"seed {run.seed}: {run.wrong}" for run in runs if run.wrong)
    for name in ("note", "not_here"):
        fields[name] = "; ".join(sorted({getattr(run, name) for run in runs} - {""}))
    return runs[0].model_copy(update=fields)
