"""The six rungs of notebook 09: what each queue promises, and the faults that try to break it.

A play is a run with a fault before step ``first`` of one process, and perhaps one before step ``second`` of another.
All values of both are tried, from the shortest play on, so the first counterexample is a short one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from overload_demo.course.referee import PlayStage
from overload_demo.lab.history import History, Submission, Violations

LEASE_S, PROMISE_S, ROOM, MOST_ATTEMPTS = 30.0, 3.0, 3, 3

Cut = int | None
Rule = Callable[[History, Violations, bool], None]


@dataclass(frozen=True)
class Play:
    """A play: ``run(stage, *cuts)`` returns for each cut, up to the first, whether it happened; maybe for more.

    ``bad`` is how runs of j1 end.
    """

    story: str
    run: Callable[..., tuple[bool, ...]]
    cuts: int = 0
    bad: Callable[[int], str] = lambda number: ""


@dataclass(frozen=True)
class Rung:
    """One queue of the ladder: its plays, and the rules beyond those for each job."""

    plays: tuple[Play, ...]
    arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    most_attempts: int = 99
    rules: tuple[Rule, ...] = ()
    can_refuse: bool = False
    result: str = "{job} is done"

    def is_result_of(self, result: Any, request: Submission) -> bool:
        """Whether a result is that of the request's job; where it names the worker instead, it fits each job."""
        return "{job}" not in self.result or result == self.result.format(job=request.job_id)


# ---- plays


def calm(*jobs: str) -> Callable[[PlayStage], tuple[bool, ...]]:
    """Submit jobs, then let one worker do them, and start another one later; without any fault."""

    def run(stage: PlayStage) -> tuple[bool, ...]:
        for job in jobs:
            stage.submit(job)
        stage.worker("worker A")
        stage.worker("worker B")
        return ()

    return run


def killed(*jobs: str) -> Callable[..., tuple[bool, ...]]:
    """Kill worker A before step ``first``, its successor before ``second``; then workers until nothing is left."""

    def run(stage: PlayStage, *cuts: int) -> tuple[bool, ...]:
        for job in jobs:
            stage.submit(job)
        happened = []
        for cut, name in zip([*cuts, *[None] * 6], "ABCDEFGH", strict=False):
            worker, is_cut = stage.worker(f"worker {name}", cut=cut)
            happened.append(is_cut)
            if worker.pid and is_cut:
                stage.fault(worker, "is killed")
                worker.kill()
            if not is_cut:
                break
        return tuple(happened)

    return run


def stopped(b_dies: bool) -> Callable[..., tuple[bool, ...]]:
    """Stop worker A before step ``first`` for longer than a lease, and worker B, which has its job, before ``second``.

    A goes on in the meantime; then B goes on, or dies.
    """

    def run(stage: PlayStage, first: int, second: Cut = None) -> tuple[bool, ...]:
        stage.submit("j1")
        a, is_cut = stage.worker("worker A", stage.now_s, cut=first)
        if not is_cut:
            return False, False
        a.pause()
        fault = stage.fault(a, "is stopped")
        stage.pass_time(LEASE_S + 1)
        b, b_is_cut = stage.worker("worker B", stage.now_s, cut=second)
        if b_is_cut:
            b.pause()
            b_fault = stage.fault(b, "is stopped")
        a.resume()
        stage.end_fault(fault)
        stage.work(a, stage.now_s)
        if b_is_cut and b_dies:
            b.kill()
        elif b_is_cut:
            b.resume()
        if b_is_cut:
            stage.end_fault(b_fault)
        stage.pass_time(LEASE_S + 1)
        stage.worker("worker C", stage.now_s)
        return True, b_is_cut

    return run


def dead_leaser(stage: PlayStage, first: int) -> tuple[bool, ...]:
    """Kill worker A before step ``first``; another one comes when its lease is over."""
    stage.submit("j1")
    a, is_cut = stage.worker("worker A", stage.now_s, cut=first)
    if is_cut:
        stage.fault(a, "is killed")
        a.kill()
        stage.pass_time(LEASE_S + 1)
        stage.worker("worker B", stage.now_s)
    return (is_cut,)


def leased_calm(stage: PlayStage) -> tuple[bool, ...]:
    """Two jobs, one worker with leases, and another one later; without any fault."""
    stage.submit("j1")
    stage.submit("j2")
    stage.worker("worker A", stage.now_s)
    stage.pass_time(LEASE_S + 1)
    stage.worker("worker B", stage.now_s)
    return ()


def two_orders(stage: PlayStage) -> tuple[bool, ...]:
    """Two clients order the same, each with its own key, and one of them repeats its request much later."""
    stage.submit("key1", "2 seats")
    stage.submit("key2", "2 seats")
    stage.worker("worker A")
    return ()


def repeated(worker_first: bool) -> Callable[..., tuple[bool, ...]]:
    """Kill the API before step ``first`` of a request; its client repeats it. Later it repeats it once more."""

    def run(stage: PlayStage, first: int) -> tuple[bool, ...]:
        one = stage.submit("key1", "2 seats", by="API A", cut=first)
        if one.is_cut:
            one.actor.kill()
        else:
            stage.add("client", "", "the answer is lost", "fault")
        if worker_first:
            stage.worker("worker A")
        stage.submit("key1", "2 seats", by="API B")
        stage.worker("worker B")
        return (one.is_cut,)

    return run


def at_once(stage: PlayStage, first: int) -> tuple[bool, ...]:
    """Stop API A before step ``first`` of a request while API B does a repeat of it; then A goes on."""
    one = stage.submit("key1", "2 seats", by="API A", cut=first)
    if was_cut := one.is_cut:
        one.actor.pause()
    stage.submit("key1", "2 seats", by="API B")
    if was_cut:
        one.resume()
    stage.worker("worker A")
    return (was_cut,)


def crowd(rounds: int) -> Callable[[PlayStage], tuple[bool, ...]]:
    """One client more than fit; ``rounds`` times, always when the worker has done all jobs."""

    def run(stage: PlayStage) -> tuple[bool, ...]:
        for one in range(rounds):
            for number in range(1, ROOM + 2):
                stage.submit(f"j{one * (ROOM + 1) + number}")
            stage.worker("worker A")
        return ()

    return run


def last_place(works: bool) -> Callable[..., tuple[bool, ...]]:
    """One place is free. Stop API A before step ``first`` of a request; a second request, or the worker, is faster."""

    def run(stage: PlayStage, first: int) -> tuple[bool, ...]:
        for number in range(1, ROOM):
            stage.submit(f"j{number}")
        if works:
            stage.submit(f"j{ROOM}")
        one = stage.submit("jA", by="API A", cut=first)
        if was_cut := one.is_cut:
            one.actor.pause()
        if works:
            stage.worker("worker A")
        else:
            stage.submit("jB", by="API B")
        if was_cut:
            one.resume()
        stage.worker("worker B")
        return (was_cut,)

    return run


# ---- rules beyond those for each job


def _in_time(history: History, verdict: Violations, _: bool) -> None:
    done_at = {run.job_id: run.at for run in history.effects}
    for one in history.requests:
        if one.outcome == "ok" and (waited := done_at.get(one.job_id or "", 0.0) - one.ended_at) > PROMISE_S + 0.01:
            verdict.wrong["too late"].append(f"{one.job_id} was done after {waited:.0f} s")
        if one.outcome == "fail" and _most_waiting(history, one) < ROOM:
            verdict.wrong["refused with room"].append(f"{one.value} was refused")


def _most_waiting(history: History, refused: Submission) -> int:
    """Return how many jobs may have been in the queue at some moment of a refused request."""
    started_at = {run.job_id: run.at for run in reversed(history.starts)}
    others = [one for one in history.requests if one is not refused and one.outcome != "fail"]
    return sum(
        one.invoked_at < refused.ended_at and started_at.get(one.job_id or "", 1e9) > refused.invoked_at
        for one in others
    )


def _not_too_early(history: History, verdict: Violations, was_killed: bool) -> None:
    for job, final in history.finals.items():
        starts = sum(run.job_id == job for run in history.starts)
        if final.status == "failed" and (starts < MOST_ATTEMPTS and not was_killed):
            verdict.wrong["given up too early"].append(f"{job} after {starts} attempts")
        if final.status == "failed" and not starts:
            verdict.wrong["given up too early"].append(f"{job} before any attempt")


def _one_job_each(history: History, verdict: Violations, _: bool) -> None:
    keys: dict[str, str] = {}
    for one in history.requests:
        if one.job_id and keys.setdefault(one.job_id, one.value) != one.value:
            verdict.wrong["orders merged"].append(f"{one.value} got {one.job_id}, the job of {keys[one.job_id]}")


_KILLED = "a worker is killed"
_TWICE = "a worker is killed, and the one after it too"
_KILLS = (
    Play("no fault at all", calm("j1", "j2")),
    Play(_KILLED, killed("j1"), 1),
    Play(_KILLED, killed("j1", "j2"), 1),
    Play(_TWICE, killed("j1"), 2),
)
_WITH_KEY = {"submit": ("store", "key", "order")}
_WITH_TIME = {"work": ("store", "run", "now")}


def _always(how: str) -> Callable[[int], str]:
    return lambda number: how


def _once(number: int) -> str:
    return "fails" if number == 1 else ""


LADDER = {
    "1_pop": Rung(_KILLS),
    "2_acknowledge": Rung(_KILLS),
    "3_fence": Rung(
        (
            Play("no fault at all", leased_calm),
            Play("a worker is stopped for longer than its lease", stopped(False), 1),
            Play("a worker is killed", dead_leaser, 1),
            Play("a worker is stopped for longer than its lease, then a second one", stopped(False), 2),
            Play("a worker is stopped for longer than its lease; a second one dies", stopped(True), 2),
        ),
        _WITH_TIME,
        result="by {worker}",  # so that a second run is seen
    ),
    "4_idempotent": Rung(
        (
            Play("no fault at all", two_orders),
            Play("an answer does not arrive, and the client repeats its request", repeated(False), 1),
            Play("an answer does not arrive, and the client repeats its request later", repeated(True), 1),
            Play("a client repeats its request while the first is on its way", at_once, 1),
        ),
        _WITH_KEY,
        rules=(_one_job_each,),
    ),
    "5_bound": Rung(
        (
            Play("one client more than fit, and no fault", crowd(1)),
            Play("one client more than fit, again and again", crowd(3)),
            Play("two clients want the last place", last_place(False), 1),
            Play("the worker is faster than a request", last_place(True), 1),
        ),
        rules=(_in_time,),
        can_refuse=True,
    ),
    "6_budget": Rung(
        (
            Play("no fault at all", calm("j1", "j2")),
            Play("the work of j1 fails once", calm("j1", "j2"), bad=_once),
            Play("the work of j1 always fails", calm("j1", "j2"), bad=_always("fails")),
            Play("j1 kills each worker that runs it", killed("j1", "j2"), bad=_always("kills")),
            Play("the work of j1 fails once, and a worker is killed", killed("j1", "j2"), 1, _once),
            Play("the work of j1 always fails, and a worker is killed", killed("j1", "j2"), 1, _always("fails")),
            Play("the work of j1 fails once, and two workers are killed", killed("j1"), 2, _once),
        ),
        most_attempts=MOST_ATTEMPTS,
        rules=(_not_too_early,),
    ),
}
