"""The fault matrix: what a row is, how it is run, and what it says."""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.fault_matrix import RowResult
from tests.history.checker import Verdict, check, longest_loss_s, recoveries
from tests.history.environments import Environment, plain
from tests.history.machine import NotHereError
from tests.history.scenario import Scenario

Fault = Callable[[Scenario], object]


def nothing(_: Scenario) -> None:
    """The fault is somewhere else: in ``around``, or in how the stack is set up."""


@dataclass(frozen=True)
class Row:
    """One fault, done again and again under load.

    ``fault`` is called every ``every_s`` seconds or so; ``around`` holds while the load runs, ``afterwards`` is done
    when it has ended. ``fired`` counts the faults where calls of ``fault`` do not. ``recovers_by`` is what shows that a
    fault is over: the next "start" of a job, or the next "ok" to a client that asked after it. ``may`` are violations
    that this fault is allowed to cause; they are counted and told. With ``nobody_dies`` no job is done twice; with
    ``all_accepted`` nobody was refused either.
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
    nobody_dies: bool = False
    all_accepted: bool = False
    strangers: bool = False
    also: Callable[[Scenario, Verdict], str] = lambda run, verdict: ""

    def run(self, folder: Path, seed: int, *, share: float = 1.0) -> RowResult:
        """Do it in ``folder`` and check the history; ``share`` of the jobs is enough for a short run."""
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
                verdict = check(history, workers=run.worker_count, has_strangers=self.strangers)
                result.fired = self.fired(run) if self.fired else times
                result.note = environment.told()
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
        result.seconds = time.monotonic() - since
        return result

    def _judge(self, run: Scenario, verdict: Verdict, fired: int) -> str:
        """What the row fails for; "" if nothing."""
        counts, wrong = verdict.counts, []
        forbidden = {kind: found for kind, found in verdict.wrong.items() if kind not in self.may}
        wrong += [f"{kind} {len(found)} ({found[0]})" for kind, found in forbidden.items()]
        if not fired:
            wrong.append("the fault never happened")
        if not verdict.exposed_jobs:
            wrong.append("no job was exposed to it")
        if self.nobody_dies and counts["started again"]:
            wrong.append(f"{counts['started again']} jobs were started again though nobody had died")
        if self.all_accepted and counts["acknowledged"] != counts["attempted"]:
            wrong.append(f"{counts['attempted'] - counts['acknowledged']} requests were not accepted")
        return "; ".join([*wrong, *filter(None, [self.also(run, verdict)])])
