"""The stack under load while its processes are killed, stopped and cut off: what the checker says of the history.

These are short runs of the most telling faults. The seed of each is printed, and can be given with HISTORY_SEED.
"""

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.history.checker import Verdict, check
from tests.history.mutants import MUTANTS
from tests.history.scenario import Scenario

pytestmark = pytest.mark.slow

JOBS = 1500
Faults = Callable[[Scenario], object]


def seed() -> int:
    chosen = int(os.environ.get("HISTORY_SEED", "0")) or random.randrange(1, 1_000_000)
    sys.stdout.write(f"HISTORY_SEED={chosen}\n")
    return chosen


def kill_the_api(run: Scenario) -> None:
    run.kill(run.api)


def kill_a_worker(run: Scenario) -> None:
    run.kill(run.random.choice(run.workers))


def kill_redis(run: Scenario) -> None:
    run.kill_store("redis")


def kill_the_gateway(run: Scenario) -> None:
    run.kill_store("gateway")


def stop_a_worker_for_longer_than_its_lease(run: Scenario) -> None:
    worker = run.random.choice(run.workers)
    assert worker.pid is not None
    run.pause(worker.pid, 1.6)


def do_nothing(_: Scenario) -> None:
    """The fault is somewhere else."""


def run_under(
    faults: Faults, folder: Path, *, workers: int = 1, jobs: int = JOBS, every_s: float = 0.4, **more: Any
) -> Verdict:
    """Fire a load at a stack while ``faults`` is done again and again, and check the history."""
    with Scenario(folder, seed=seed(), workers=workers, **more) as run:
        times = run.fire(jobs, lambda: faults(run), every_s=every_s)
        verdict = check(run.history(), workers=workers)
    sys.stdout.write(f"{times} times, exposed {verdict.exposed}, {verdict.counts}: {verdict.told()}\n")
    return verdict


@pytest.mark.parametrize(
    ("faults", "workers", "every_s"),
    [
        (kill_the_api, 1, 0.6),
        (kill_a_worker, 1, 0.4),
        (kill_a_worker, 2, 0.4),
        (kill_redis, 1, 0.6),
        (kill_the_gateway, 1, 1.0),
        (stop_a_worker_for_longer_than_its_lease, 2, 0.3),
    ],
)
def test_no_accepted_job_is_lost_and_every_repetition_has_its_reason(
    tmp_path: Path, faults: Faults, workers: int, every_s: float
) -> None:
    verdict = run_under(faults, tmp_path, workers=workers, every_s=every_s)

    assert verdict.is_valid, verdict.told()
    assert max(verdict.exposed) > 0


def test_answers_that_never_arrive_make_no_second_job_and_lose_none(tmp_path: Path) -> None:
    verdict = run_under(do_nothing, tmp_path, loses_answers=0.1)

    assert verdict.is_valid, verdict.told()


REVEALED_BY: dict[str, dict[str, Any]] = {
    "a bare pop": {"faults": kill_a_worker},
    "no fence": {"faults": stop_a_worker_for_longer_than_its_lease, "workers": 2, "every_s": 0.3},
    "an enqueue that is not idempotent": {"faults": do_nothing, "loses_answers": 0.2},
    "202 before the commit": {"faults": kill_the_api, "every_s": 1.0},
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_queue_with_a_broken_promise_is_caught(tmp_path: Path, name: str) -> None:
    mutant = MUTANTS[name]

    verdict = run_under(folder=tmp_path, package=mutant.build(tmp_path / "mutant"), **REVEALED_BY[name])

    assert set(mutant.shows_as) & verdict.wrong.keys(), verdict.told()
