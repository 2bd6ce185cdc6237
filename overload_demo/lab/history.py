"""Find violations in the history of a queue, after Jepsen's total-queue checker.

That checker's rule: nothing acknowledged is lost, and nothing comes out that was not put in. This one also checks
bounded and explained repetition, write-once results, and legal transitions. The fault matrix of the tests judges the
reference stack with it, notebook 09 a student's repair.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

Outcome = Literal["ok", "fail", "info"]

TERMINAL = {"done", "failed"}
LEGAL = {
    "queued": {"queued", "processing", *TERMINAL},
    "processing": {"processing", "queued", *TERMINAL},
    "done": {"done"},
    "failed": {"failed"},
}


@dataclass(frozen=True)
class Submission:
    """One submission. ``ok``: accepted, as ``job_id``. ``fail``: refused. ``info``: outcome unknown.

    ``value`` identifies it in the history. ``status`` is that of the response, None without one.
    """

    value: Any
    invoked_at: float
    ended_at: float
    outcome: Outcome
    job_id: str | None
    status: int | None = None


@dataclass(frozen=True)
class Poll:
    """One response to a poll of a job; ``result`` and ``position`` if present."""

    at: float
    job_id: str
    status: str
    position: int | None = None
    result: Any = None


@dataclass(frozen=True)
class JobAttempt:
    """One start or one effect of a job."""

    at: float
    job_id: str
    attempt: int
    value: Any
    worker: Any


@dataclass(frozen=True)
class Fault:
    """A fault of a process or a connection, from ``began_at`` to ``ended_at``."""

    what: str
    began_at: float
    ended_at: float


@dataclass(frozen=True)
class Final:
    """The state of a job in the store after everything has drained."""

    status: str
    result: Any = None


@dataclass
class History:
    """All recorded events, each list in time order. ``finals`` by job id; ``counted`` are the queue's own counters."""

    requests: list[Submission] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    refused_polls: list[int] = field(default_factory=list)  # their statuses
    starts: list[JobAttempt] = field(default_factory=list)
    effects: list[JobAttempt] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    finals: dict[str, Final] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Violations:
    """``wrong`` names every violation, by kind; ``counts`` are events that are allowed and reported."""

    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, kind: str, found: Iterable[str]) -> None:
        """Add violations of a kind."""
        for one in found:
            self.wrong[kind].append(one)

    def describe(self) -> str:
        """Return every kind of violation, with its number and one example."""
        return "; ".join(f"{kind} {len(found)} ({found[0]})" for kind, found in self.wrong.items()) or "nothing wrong"


def check_jobs(
    history: History, verdict: Violations, *, max_attempts: int, is_result_of: Callable[[Any, Submission], bool]
) -> None:
    """Check each job of a history that has come to rest: everything drained, every job read.

    ``is_result_of(result, request)`` is whether the result belongs to that submission.
    """
    _sets(history, verdict)
    _repetition(history, verdict, max_attempts)
    _results(history, verdict, is_result_of)
    _transitions(history, verdict)


def _sets(history: History, verdict: Violations) -> None:
    """Find lost, phantom and forbidden jobs; recovered ones ran although their client got no 202."""
    attempted = {request.value for request in history.requests}
    refused = {request.value for request in history.requests if request.outcome == "fail"}
    started = {run.value for run in history.starts}
    effects = {run.job_id for run in history.effects}
    acknowledged = [request for request in history.requests if request.outcome == "ok"]
    for request in acknowledged:
        final = history.finals.get(request.job_id or "")
        if final is None or final.status not in TERMINAL:
            verdict.wrong["lost"].append(f"{request.job_id} is {final.status if final else 'gone'}")
        elif final.status == "done" and request.job_id not in effects:
            verdict.wrong["lost"].append(f"{request.job_id} is done without an effect")
    verdict.note("phantom", (f"value {value}" for value in sorted(started - attempted)))
    verdict.note("forbidden", (f"value {value}" for value in sorted(started & refused)))
    verdict.counts |= {
        "attempted": len(attempted),
        "acknowledged": len(acknowledged),
        "refused": len(refused),
        "unknown": sum(1 for request in history.requests if request.outcome == "info"),
        "recovered": len(started - {request.value for request in acknowledged}),
    }


def _repetition(history: History, verdict: Violations, max_attempts: int) -> None:
    """Find jobs started or done more than once without a fault, and jobs started too often."""
    by_job: dict[str, list[JobAttempt]] = defaultdict(list)
    ids_of: dict[Any, set[str]] = defaultdict(set)
    for run in history.starts:
        by_job[run.job_id].append(run)
        ids_of[run.value].add(run.job_id)
    verdict.note("enqueued twice", (f"value {value}: {sorted(ids)}" for value, ids in ids_of.items() if len(ids) > 1))
    for job_id, runs in by_job.items():
        if len(runs) > max_attempts:
            verdict.wrong["started too often"].append(f"{job_id}: {len(runs)} times")
        for earlier, later in pairwise(runs):
            if not _explained(earlier, later, history.faults):
                verdict.wrong["repeated without a fault"].append(job_id)
    effects = Counter(run.job_id for run in history.effects)
    verdict.counts["started again"] = sum(len(runs) - 1 for runs in by_job.values())
    verdict.counts["duplicated"] = sum(1 for count in effects.values() if count > 1)


def _explained(earlier: JobAttempt, later: JobAttempt, faults: Iterable[Fault]) -> bool:
    return any(fault.began_at <= later.at and fault.ended_at >= earlier.at for fault in faults)


def _results(history: History, verdict: Violations, is_result_of: Callable[[Any, Submission], bool]) -> None:
    """Check that a result belongs to its submission and never changes."""
    request_of = {request.job_id: request for request in history.requests if request.job_id}
    seen: dict[str, object] = {}
    polled = [(poll.job_id, poll.status, poll.result) for poll in history.polls]
    for job_id, status, result in [*polled, *((key, one.status, one.result) for key, one in history.finals.items())]:
        if status != "done":
            continue
        if seen.setdefault(job_id, result) != result:
            verdict.wrong["result changed"].append(f"{job_id}: {seen[job_id]} became {result}")
        if job_id in request_of and not is_result_of(result, request_of[job_id]):
            verdict.wrong["result of another job"].append(f"{job_id}: {result}")


def _transitions(history: History, verdict: Violations) -> None:
    """Check each job's sequence of states. Polls of one job come from one client, so they are in order."""
    last: dict[str, str] = {}
    seen = [(poll.job_id, poll.status) for poll in history.polls]
    for job_id, status in [*seen, *((job_id, final.status) for job_id, final in history.finals.items())]:
        before = last.get(job_id, "queued")
        if status not in LEGAL.get(before, set()):
            verdict.wrong["illegal transition"].append(f"{job_id}: {before} became {status}")
        last[job_id] = status


class Step(NamedTuple):
    """One event of a picture: ``who`` did ``what`` and was ``told`` something.

    ``kind``: "client", "command", "run" or "fault". ``job`` is the job it is about, if that is known. ``at`` in
    simulated seconds, which the place in the list makes unique.
    """

    at: float
    who: str
    what: str
    told: str
    kind: str
    job: str = ""


@dataclass(frozen=True)
class Grading:
    """How a repaired queue was judged. ``status``: "holds", "broken" (with a counterexample) or "ended" (not judged).

    ``kind`` names the broken promise as the checker does, ``broken`` is it in a sentence, ``story`` the fault that
    shows it, ``steps`` what happened. ``plays`` is the number of plays tried, ``printed`` what the file printed in the
    one that is shown. ``is_changed`` is whether the file differs from the one that the course ships.
    """

    file: str
    status: Literal["holds", "broken", "ended"]
    plays: int = 0
    kind: str = ""
    broken: str = ""
    story: str = ""
    job: str = ""
    steps: tuple[Step, ...] = ()
    printed: str = ""
    is_changed: bool = True

    def __repr__(self) -> str:
        if self.status == "ended":
            return f"{self.file}: {self.broken}"
        if self.status == "broken":
            return f"{self.file}: the promise is broken in play {self.plays}. {self.story}: {self.broken}"
        return f"{self.file}: the promise holds in each of {self.plays} plays"
