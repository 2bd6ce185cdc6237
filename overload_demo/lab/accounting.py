"""Does every accepted job come out once? Counted from outside: the clients' ids, the worker's effect log, the store.

A reconciliation must be able to say no. It takes nothing from the counters of the system under test: *accepted* are the
ids clients were told, *effects* are lines the worker appended as they happened, *states* are read for each id.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overload_demo.jobs import JobState
from overload_demo.lab.job_log import read_events
from overload_demo.queue.results import MAX_READ_JOBS, Results


@dataclass(frozen=True)
class Reconciliation:
    """How many accepted jobs came out how; ``examples`` names some ids of the lost and the duplicated.

    ``lost``: no terminal state, or done without an effect. ``duplicated``: more than one effect. ``failed``: ended with
    an error. ``unclaimed``: effects of jobs nobody was told were accepted (a client that gave up, a reply cut off).
    """

    accepted: int
    done: int
    failed: int
    lost: int
    duplicated: int
    unclaimed: int
    examples: list[str] = field(default_factory=list)


def read_effects(log: Path) -> Counter[str]:
    """How often each job had its effect, from a worker's effect log; a torn last line is skipped."""
    return Counter(event.job_id for event in read_events(log) if event.what == "effect")


@dataclass(frozen=True)
class StoredJobs:
    """What the store says of the accepted jobs; ids it does not know are left out.

    ``capacity_per_s`` is what the slot allowed the worker, from the durations in the results; 0.0 without any.
    """

    states: dict[str, JobState]
    capacity_per_s: float


async def read_stored(results: Results, job_ids: Sequence[str]) -> StoredJobs:
    """Read state and duration of each job, a page at a time. Raises :class:`StoreError`."""
    states: dict[str, JobState] = {}
    duration_ms = timed = 0.0
    for start in range(0, len(job_ids), MAX_READ_JOBS):
        page = job_ids[start : start + MAX_READ_JOBS]
        for job_id, status in zip(page, await results.statuses(page), strict=True):
            if status is None:
                continue
            states[job_id] = status.state
            if isinstance(status.result, dict) and "processing_duration_ms" in status.result:
                duration_ms += status.result["processing_duration_ms"]
                timed += 1
    return StoredJobs(states, round(timed / duration_ms * 1000, 1) if duration_ms else 0.0)


def reconcile(accepted: Sequence[str], effects: Counter[str], states: dict[str, JobState]) -> Reconciliation:
    """Account for every accepted id. An id told to two clients is one of the duplicates."""
    told = Counter(accepted)
    done = {job_id for job_id in told if states.get(job_id) is JobState.DONE}
    failed = {job_id for job_id in told if states.get(job_id) is JobState.FAILED}
    lost = [job_id for job_id in told if job_id not in failed and not (job_id in done and effects[job_id])]
    duplicated = [job_id for job_id, count in told.items() if effects[job_id] > 1 or count > 1]
    return Reconciliation(
        accepted=len(accepted),
        done=len(done),
        failed=len(failed),
        lost=len(lost),
        duplicated=len(duplicated),
        unclaimed=sum(1 for job_id in effects if job_id not in told),
        examples=[f"lost {job_id}" for job_id in lost[:5]] + [f"duplicated {job_id}" for job_id in duplicated[:5]],
    )
