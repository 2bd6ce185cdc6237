"""Find violations in a history of the reference stack.

The rules for each job are those of :mod:`overload_demo.lab.history`, which also judge the repairs of notebook 09. This
module adds the promises of this queue: order, positions, counters and responses.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from overload_demo.jobs import shard_of
from overload_demo.lab.history import History, Submission, Violations, check_jobs
from tests.history.clients import FIRST_KEYED

RETURNED_WITHIN_S = 5.0  # after a fault, leases expire and jobs return before the waiting ones


@dataclass
class Verdict(Violations):
    """``exposed_jobs``: jobs acknowledged before the end of some fault and without an effect at its beginning."""

    exposed_jobs: int = 0


def check(history: History, *, max_attempts: int = 3, workers: int = 1, has_foreign_entries: bool = False) -> Verdict:
    """Check a history that has come to rest: everything drained, every job read.

    Several ``workers`` lease jobs in order but may start them in another: the order of starts is then not checked.
    ``has_foreign_entries``: another program wrote into the queue; positions and counters are then not checked.
    """
    verdict = Verdict()
    check_jobs(history, verdict, max_attempts=max_attempts, is_result_of=_is_doubled)
    if workers == 1:
        _order(history, verdict)
    if not has_foreign_entries:
        _positions(history, verdict)
        _conservation(history, verdict)
    _answers(history, verdict)
    _exposure(history, verdict)
    return verdict


def _is_doubled(result: object, request: Submission) -> bool:
    return result == {"doubled": 2 * request.value}


def _order(history: History, verdict: Verdict) -> None:
    """Check that a job accepted before another was submitted is started first."""
    first_start: dict[str, float] = {}
    for run in history.starts:
        first_start.setdefault(run.job_id, run.at)
    known: dict[str, Submission] = {
        request.job_id: request for request in history.requests if request.outcome == "ok" and request.job_id
    }
    latest: dict[int, tuple[float, str]] = {}  # by shard: each has an order of its own
    for job_id in sorted(first_start.keys() & known.keys(), key=first_start.__getitem__):
        request = known[job_id]
        latest_invoked, latest_id = latest.get(shard_of(job_id), (float("-inf"), ""))
        if latest_invoked > request.ended_at:
            verdict.wrong["out of order"].append(
                f"{latest_id} was submitted after {job_id} was accepted, and started first"
            )
        if request.invoked_at > latest_invoked:
            latest[shard_of(job_id)] = request.invoked_at, job_id


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


def longest_gap_s(history: History, *, keyed: bool) -> float:
    """Return the longest time without an acceptance of any client, of posts with or without an Idempotency-Key.

    A key belongs to one shard, so this is then the longest of any shard. Time after the last post does not count.
    """
    posts = [one for one in history.requests if (one.value >= FIRST_KEYED) is keyed]
    last_post = max((one.invoked_at for one in posts), default=0.0)
    accepted: dict[int, list[float]] = defaultdict(list)
    for post in posts:
        if post.outcome == "ok":
            accepted[shard_of(post.job_id or "") if keyed else 0].append(min(post.ended_at, last_post))
    return max(
        (later - earlier for times in accepted.values() for earlier, later in pairwise(sorted(times))), default=0.0
    )
