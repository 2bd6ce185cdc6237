"""Find violations in a history, after Jepsen's total-queue checker.

That checker's rule: nothing acknowledged is lost, and nothing comes out that was not put in. This one also checks the
other promises of this queue: bounded and explained repetition, write-once results, legal transitions, order, positions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from tests.history.record import Fault, History, Request, Run

TERMINAL = {"done", "failed"}
LEGAL = {
    "queued": {"queued", "processing", *TERMINAL},
    "processing": {"processing", "queued", *TERMINAL},
    "done": {"done"},
    "failed": {"failed"},
}
RETURNED_WITHIN_S = 5.0  # after a fault, leases expire and jobs return before the waiting ones


@dataclass
class Verdict:
    """``wrong`` names every violation, by kind; ``counts`` are events that are allowed and reported.

    ``exposed_jobs``: jobs acknowledged before the end of some fault and without an effect at its beginning.
    """

    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, int] = field(default_factory=dict)
    exposed_jobs: int = 0

    @property
    def is_valid(self) -> bool:
        """Whether nothing was wrong."""
        return not self.wrong

    def note(self, kind: str, found: Iterable[str]) -> None:
        """Add violations of a kind."""
        for one in found:
            self.wrong[kind].append(one)

    def describe(self) -> str:
        """Return every kind of violation, with its number and one example."""
        return "; ".join(f"{kind} {len(found)} ({found[0]})" for kind, found in self.wrong.items()) or "nothing wrong"


def check(history: History, *, max_attempts: int = 3, workers: int = 1, has_foreign_entries: bool = False) -> Verdict:
    """Check a history that has come to rest: everything drained, every job read.

    Several ``workers`` lease jobs in order but may start them in another: the order of starts is then not checked.
    ``has_foreign_entries``: another program wrote into the queue; positions and counters are then not checked.
    """
    verdict = Verdict()
    _sets(history, verdict)
    _repetition(history, verdict, max_attempts)
    _results(history, verdict)
    _transitions(history, verdict)
    if workers == 1:
        _order(history, verdict)
    if not has_foreign_entries:
        _positions(history, verdict)
        _conservation(history, verdict)
    _answers(history, verdict)
    _exposure(history, verdict)
    return verdict


def _sets(history: History, verdict: Verdict) -> None:
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


def _repetition(history: History, verdict: Verdict, max_attempts: int) -> None:
    """Find jobs started or done more than once without a fault, and jobs started too often."""
    by_job: dict[str, list[Run]] = defaultdict(list)
    for run in history.starts:
        by_job[run.job_id].append(run)
    ids_of: dict[int, set[str]] = defaultdict(set)
    for run in history.starts:
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


def _explained(earlier: Run, later: Run, faults: Iterable[Fault]) -> bool:
    return any(fault.began_at <= later.at and fault.ended_at >= earlier.at for fault in faults)


def _results(history: History, verdict: Verdict) -> None:
    """Check that a result belongs to its payload and never changes."""
    value_of = {request.job_id: request.value for request in history.requests if request.job_id}
    seen: dict[str, object] = {}
    polled = [(poll.job_id, poll.status, poll.result) for poll in history.polls]
    for job_id, status, result in [*polled, *((key, one.status, one.result) for key, one in history.finals.items())]:
        if status != "done":
            continue
        if seen.setdefault(job_id, result) != result:
            verdict.wrong["result changed"].append(f"{job_id}: {seen[job_id]} became {result}")
        if job_id in value_of and result != {"doubled": 2 * value_of[job_id]}:
            verdict.wrong["result of another job"].append(f"{job_id}: {result}")


def _transitions(history: History, verdict: Verdict) -> None:
    """Check each job's sequence of states. Polls of one job come from one client, so they are in order."""
    last: dict[str, str] = {}
    seen = [(poll.job_id, poll.status) for poll in history.polls]
    for job_id, status in [*seen, *((job_id, final.status) for job_id, final in history.finals.items())]:
        before = last.get(job_id, "queued")
        if status not in LEGAL.get(before, set()):
            verdict.wrong["illegal transition"].append(f"{job_id}: {before} became {status}")
        last[job_id] = status


def _order(history: History, verdict: Verdict) -> None:
    """Check that a job accepted before another was submitted is started first."""
    first_start: dict[str, float] = {}
    for run in history.starts:
        first_start.setdefault(run.job_id, run.at)
    known: dict[str, Request] = {
        request.job_id: request for request in history.requests if request.outcome == "ok" and request.job_id
    }
    latest_invoked, latest_id = float("-inf"), ""
    for job_id in sorted(first_start.keys() & known.keys(), key=first_start.__getitem__):
        request = known[job_id]
        if latest_invoked > request.ended_at:
            verdict.wrong["out of order"].append(
                f"{latest_id} was submitted after {job_id} was accepted, and started first"
            )
        if request.invoked_at > latest_invoked:
            latest_invoked, latest_id = request.invoked_at, job_id


def _positions(history: History, verdict: Verdict) -> None:
    """Check that a position never grows, except while a fault returns jobs to the head."""
    last: dict[str, tuple[int, float]] = {}
    for poll in history.polls:
        if poll.position is None:
            continue
        before, at = last.get(poll.job_id, (poll.position, poll.at))
        disturbed = any(
            fault.began_at <= poll.at and fault.ended_at >= at - RETURNED_WITHIN_S for fault in history.faults
        )
        if poll.position > before and not disturbed:
            verdict.wrong["position grew"].append(f"{poll.job_id}: {before} became {poll.position}")
        last[poll.job_id] = (poll.position, poll.at)


def _conservation(history: History, verdict: Verdict) -> None:
    """Check that the queue finished every job it counted as accepted, and that none is left."""
    counted = history.counted
    if not counted:
        return
    if counted["queue_length"] or counted["in_flight"]:
        verdict.wrong["left over"].append(f"{counted['queue_length']} waiting, {counted['in_flight']} in flight")
    finished = counted["done"] + counted["failed"] + counted.get("cancelled", 0)
    if counted["accepted"] != finished:
        verdict.wrong["not conserved"].append(f"accepted {counted['accepted']}, finished {finished}")


def _answers(history: History, verdict: Verdict) -> None:
    """Check that a fault behind the API is a 503, never a 500, and that no accepted job is a 404."""
    statuses = [request.status for request in history.requests] + history.refused_polls
    verdict.note(
        "server error", (f"status {status}" for status in statuses if status and status >= 500 and status != 503)
    )
    verdict.note(
        "unknown id", ("a job that was accepted is a 404" for status in history.refused_polls if status == 404)
    )


def _exposure(history: History, verdict: Verdict) -> None:
    """Count the jobs that some fault could have lost."""
    first_effect: dict[str, float] = {}
    for run in history.effects:
        first_effect.setdefault(run.job_id, run.at)
    for request in history.requests:
        if request.outcome == "ok":
            done_at = first_effect.get(request.job_id or "", float("inf"))
            verdict.exposed_jobs += any(
                request.ended_at < fault.ended_at and fault.began_at < done_at for fault in history.faults
            )


def recoveries(history: History, by: str) -> list[float]:
    """Return the seconds from each fault to the first sign of recovery; faults without one are left out.

    The sign for ``by`` "start": the next start of a job; for "ok": the next acceptance of a request sent after
    the fault began.
    """
    if by == "start":
        signs = [(run.at, run.at) for run in history.starts]
    else:
        signs = [(one.invoked_at, one.ended_at) for one in history.requests if one.outcome == "ok"]
    found = []
    for fault in history.faults:
        after = [ended_at for sent_at, ended_at in signs if sent_at > fault.began_at]
        if after:
            found.append(min(after) - fault.began_at)
    return found


def longest_loss_s(history: History) -> float:
    """Return the age of the oldest lost acknowledged job when the store died, in seconds; 0.0 without any.

    Faults that end a store have names ending in "killed", "lost" or "over".
    """
    deaths = [fault for fault in history.faults if fault.what.endswith(("killed", "lost", "over"))]
    windows = [0.0]
    for request in history.requests:
        if request.outcome == "ok" and request.job_id not in history.finals:
            after = [death for death in deaths if death.ended_at > request.ended_at]
            if after:
                windows.append(min(after, key=lambda death: death.began_at).began_at - request.ended_at)
    return max(windows)
