"""A spike during which parts of the stack are killed, and its outcome by clients' arrays, effect log and ledger."""

import contextlib
import math
import os
import signal
import subprocess
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab.job_log import check_clients, read_events
from overload_demo.lab.ledger import ledger_of, read_charges
from overload_demo.lab.parts import primary_in
from overload_demo.lab.result import SpikeResult
from overload_demo.lab.spike_plan import OnProgress, SpikePlan, SpikeProgress
from overload_demo.lab.spike_run import run_spike
from overload_demo.lab.stack import Stack, check_killable
from overload_demo.load import LoadResult

NEAR_KILL_S = 0.25  # a silence that a kill caused begins within this
SHOWN_BEFORE_AND_AFTER = 25  # jobs in the figure of a kill


@dataclass(frozen=True)
class Kill:
    """``kill -9`` of ``part`` once a share of the requests is done (for a worker) or accepted (for any other part).

    Raises :class:`ConfigurationError` for a part that is not in ``KILLABLE``, and a share that is not between 0 and 1.
    """

    part: str
    after_share: float

    def __post_init__(self) -> None:
        check_killable(self.part)
        if not 0 < self.after_share < 1:
            raise ConfigurationError(f"after_share must be between 0 and 1, not {self.after_share:g}")

    def is_due(self, progress: SpikeProgress) -> bool:
        """Whether the spike has reached that share."""
        accepted = progress.load.accepted if progress.load else 0
        count = progress.settled if self.part == "worker" else accepted
        return progress.stage in ("fire", "drain") and count >= self.after_share * progress.offered


@dataclass(frozen=True)
class KillSeen:
    """One kill and its consequences by the logs; seconds since the first intended send.

    ``back_s``: from the kill to the end of the silence it caused: the next start of a job (for a worker) or the next
    202 (for any other part); None without one. Of a worker: ``held`` jobs were leased and not settled, so they were
    leased again; ``again`` of them had been started before the kill. Both are 0 where no job is repeated.
    """

    part: str
    at_s: float
    back_s: float | None
    held: int = 0
    again: int = 0


@dataclass(frozen=True)
class Run:
    """One attempt at a job; ``ended_s`` is when its work was done, None when it was interrupted."""

    attempt: int
    started_s: float
    ended_s: float | None


@dataclass(frozen=True)
class JobRuns:
    """One job from its 202 on, and its attempts."""

    accepted_s: float
    runs: list[Run]


@dataclass(frozen=True)
class Charges:
    """How many accepted jobs were charged never, once, and more than once, by the ledger."""

    never: int
    once: int
    more: int


@dataclass(frozen=True)
class CrashResult:
    """A spike with kills. ``charges`` is None when the handler kept no ledger.

    ``accepted_s`` and ``done_s`` are the sorted times of all 202s and of all work done, seconds since the first
    intended send. ``lives`` are the jobs around the first kill of a worker, in the order they were first started.
    """

    spike: SpikeResult
    kills: list[KillSeen]
    charges: Charges | None
    accepted_s: list[float]
    done_s: list[float]
    lives: list[JobRuns]

    @property
    def longest_silence_s(self) -> float:
        """The longest ``back_s`` of its kills, seconds; 0.0 without any."""
        return max((kill.back_s or 0.0 for kill in self.kills), default=0.0)

    @property
    def failed_but_charged(self) -> int:
        """Jobs that failed although they were charged; a job never charged is a failed one."""
        return self.spike.failed - self.charges.never if self.charges else 0


@contextlib.contextmanager
def frozen(stack: Stack, part: str = "redis") -> Iterator[None]:
    """Stop a process of ``stack`` (SIGSTOP) for the length of the block; it keeps its connections and does not reply.

    It continues also when this process is killed in the block. Raises as :meth:`Stack.kill`.
    """
    check_killable(part)
    pid = stack.process_ids().get(primary_in(stack.data_dir) if part == "primary" else part)
    if pid is None:
        raise OverloadDemoError(f"the {part} is not running as a process")
    # A stopped process does not see that its parent has died: a shell, whose stdin then ends, lets it go on.
    continues = ["sh", "-c", 'read -r _; kill -CONT "$0"', str(pid)]
    with subprocess.Popen(continues, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True):
        os.kill(pid, signal.SIGSTOP)
        yield


async def run_with_kills(
    stack: Stack,
    plan: SpikePlan,
    kills: Sequence[Kill],
    on_progress: OnProgress | None = None,
    *,
    live: OnProgress | None = None,
    out_dir: Path | None = None,
) -> CrashResult:
    """Run ``plan`` on ``stack``, carry out ``kills`` in their order, and account for every accepted job.

    A kill that is not due before the spike is over is not in the result. ``live`` and ``out_dir`` are those of
    :func:`run_spike`, whose files it writes; it is cancellable like it. Raises :class:`ConfigurationError` for a stack
    in the kernel and for clients of :func:`check_clients`, and the errors of :func:`run_spike`.
    """
    check_clients(plan.retry)
    if stack.placement != "process":
        raise ConfigurationError('kills need placement="process": no thread can be killed without its Jupyter kernel')
    waiting, done = list(kills), list[tuple[str, float]]()

    def report(progress: SpikeProgress) -> None:
        if waiting and waiting[0].is_due(progress):
            with contextlib.suppress(OverloadDemoError):  # not running: it may still be restarting
                at_mono_s = stack.kill(waiting[0].part)
                done.append((waiting.pop(0).part, at_mono_s))
        if on_progress:
            on_progress(progress)

    spike = await run_spike(stack, plan, report, live=live, out_dir=out_dir)
    return _account_for(out_dir or stack.run_folder, stack.effect_log, spike, done)


def _account_for(folder: Path, effects: Path, spike: SpikeResult, kills: Sequence[tuple[str, float]]) -> CrashResult:
    """Evaluate the files of a run; ``kills`` are (part, CLOCK_MONOTONIC seconds) in time order."""
    load = LoadResult.load(folder / "load.npz")
    runs = _read_runs(effects, load.started_mono_s)
    kills = [(part, at_mono_s - load.started_mono_s) for part, at_mono_s in kills]
    accepted_s = dict(zip(load.accepted_ids, load.done_s[load.accepted].tolist(), strict=True))
    answered_s = sorted(accepted_s.values())
    jobs = [JobRuns(accepted_s[job_id], tried) for job_id, tried in runs.items() if job_id in accepted_s]
    lives: list[JobRuns] = []
    if worker_kills_s := [at_s for part, at_s in kills if part == "worker"]:
        place = bisect_left(jobs, worker_kills_s[0], key=lambda job: job.runs[0].started_s)
        lives = jobs[max(0, place - SHOWN_BEFORE_AND_AFTER) : place + SHOWN_BEFORE_AND_AFTER]
    return CrashResult(
        spike=spike,
        kills=[
            _kill_of_a_worker(at_s, until_s, runs)
            if part == "worker"
            else KillSeen(part, at_s, _back_s(answered_s, at_s))
            for (part, at_s), (_, until_s) in pairwise([*kills, ("", math.inf)])
        ],
        charges=_charges(load.accepted_ids, ledger_of(effects)),
        accepted_s=answered_s,
        done_s=sorted(tried[-1].ended_s for tried in runs.values() if tried[-1].ended_s is not None),
        lives=lives,
    )


def _charges(accepted: Sequence[str], ledger: Path) -> Charges | None:
    if not ledger.exists():
        return None
    charged = read_charges(ledger)
    times = Counter(min(charged[job_id], 2) for job_id in accepted)
    return Charges(times[0], times[1], times[2])


def _read_runs(effect_log: Path, zero_s: float) -> dict[str, list[Run]]:
    """Return the attempts at each job; jobs in the order of their first starts."""
    events = list(read_events(effect_log))
    ends_s = {(one.job_id, one.attempt): one.at_mono_s - zero_s for one in events if one.what == "effect"}
    runs: dict[str, list[Run]] = defaultdict(list)
    for one in events:
        if one.what == "start":
            ended_s = ends_s.get((one.job_id, one.attempt))
            runs[one.job_id].append(Run(one.attempt, one.at_mono_s - zero_s, ended_s))
    return runs


def _kill_of_a_worker(at_s: float, until_s: float, runs: dict[str, list[Run]]) -> KillSeen:
    """Count the jobs leased before the kill and again before ``until_s``: a lost lease counts as an attempt."""
    held = again = 0
    for tried in runs.values():
        before = [run.attempt for run in tried if run.started_s < at_s]
        after = [run.attempt for run in tried if at_s < run.started_s < until_s]
        if after and max(after) > max([1, *before[-1:]]):
            held += 1
            again += bool(before)
    starts_s = sorted(run.started_s for tried in runs.values() for run in tried)
    return KillSeen("worker", at_s, _back_s(starts_s, at_s), held, again)


def _back_s(times_s: Sequence[float], at_s: float) -> float | None:
    """Return the time from the kill to the end of the longest silence that it met or that began soon after it."""
    first = max(0, bisect_right(times_s, at_s) - 1)
    last = bisect_right(times_s, at_s + NEAR_KILL_S)
    silences = [
        (after - max(before, at_s), after - at_s)
        for before, after in zip(times_s[first:last], times_s[first + 1 : last + 1], strict=False)
        if after > at_s
    ]
    return round(max(silences)[1], 4) if silences else None
