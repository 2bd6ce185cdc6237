"""The lease renewer: a close waits for a settlement, and an exchange begins before the batch ends."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from overload_demo.config import Settings
from overload_demo.queue.consumer import Lease, LeasedJob, LeaseEnd, Settlement
from overload_demo.store.connect import Store
from overload_demo.worker.identity import Identity
from overload_demo.worker.journal import WorkerMetrics
from overload_demo.worker.lease_renewer import LeaseRenewer
from tests.support.queues import ids_of, open_queue, settled
from tests.support.running import make_settings

JOB = LeasedJob("job_1", "{}", 1, "1", "")


class SlowConsumer:
    """In the place of the queue's consumer: a settlement takes a while and is then recorded."""

    settling = threading.Event()
    settled: list[str]

    def __init__(self, *_: Any) -> None:
        SlowConsumer.settled = []

    async def lease(self, *_: Any) -> Lease:
        return Lease([JOB], 0, 1)

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        self.settling.set()
        await asyncio.sleep(0.3)
        self.settled.extend(one.job.job_id for one in settlements)
        return 0

    async def leave(self) -> None: ...


@contextmanager
def renewing(settings: Settings, store: Store) -> Iterator[LeaseRenewer]:
    renewer = LeaseRenewer(
        settings,
        store,
        Identity("name", "name/0123456789abcdef"),
        WorkerMetrics(),
        on_overdue=lambda _: None,
        on_lost=lambda _: None,
    )
    try:
        yield renewer
    finally:
        renewer.close()


def test_a_close_waits_for_the_settlement_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    monkeypatch.setattr("overload_demo.worker.lease_renewer.Consumer", SlowConsumer)
    with renewing(make_settings(tmp_path), store) as renewer:
        renewer.fetch(1)
        assert renewer.take() == JOB
        renewer.finish(Settlement(JOB, LeaseEnd.DONE, "{}"))
        assert SlowConsumer.settling.wait(5.0)

    assert SlowConsumer.settled == ["job_1"]


def run(renewer: LeaseRenewer, count: int) -> list[str]:
    """Take and finish jobs; returns their ids."""
    ids = []
    for _ in range(count):
        job = renewer.take()
        assert job is not None
        ids.append(job.job_id)
        renewer.finish(settled(job))
    return ids


@pytest.mark.anyio
async def test_the_second_half_of_a_batch_runs_during_the_next_exchange(settings: Settings, store: Store) -> None:
    async with open_queue(settings, store) as queue:
        ids = await queue.enqueue(100)
        with renewing(settings, store) as renewer:
            assert len(renewer.fetch(32).jobs) == 32
            done = run(renewer, 16)
            next_one = renewer.take()  # the exchange begins here
            while (stats := await queue.results.stats()).done < 16 or stats.queue_length == 68:
                await asyncio.sleep(0.01)
            assert (stats.queue_length, stats.done, stats.in_flight) == (52, 16, 32)  # it holds no more than one batch
            assert next_one is not None
            renewer.finish(settled(next_one))
            done += [next_one.job_id, *run(renewer, 15)]
            while lease := renewer.fetch(32).jobs:
                done += run(renewer, len(lease))

        assert done == ids
        assert (await queue.results.stats()).done == 100


@pytest.mark.anyio
async def test_a_job_that_was_interrupted_runs_once_all_others_are_settled(settings: Settings, store: Store) -> None:
    async with open_queue(settings, store) as queue:
        ids = await queue.enqueue(40)
        await queue.redis("HSET", f"{queue.prefix}job:{ids[32]}", "attempts", 1)
        with renewing(settings, store) as renewer:
            renewer.fetch(32)
            run(renewer, 32)

            [interrupted] = renewer.fetch(32).jobs

            assert (interrupted.job_id, interrupted.attempt) == (ids[32], 2)
            stats = await queue.results.stats()
            assert (stats.done, stats.in_flight) == (32, 1)


@pytest.mark.anyio
async def test_what_a_call_ahead_says_about_an_empty_queue_is_not_used(settings: Settings, store: Store) -> None:
    async with open_queue(settings, store) as queue:
        await queue.enqueue(32)
        with renewing(settings, store) as renewer:
            renewer.fetch(32)
            run(renewer, 17)
            while (await queue.results.stats()).done < 16:
                await asyncio.sleep(0.01)
            late = await queue.enqueue(1)
            run(renewer, 15)

            assert ids_of(renewer.fetch(32).jobs) == late
