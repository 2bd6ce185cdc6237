"""Quick jobs are leased ahead: the next batch while one runs, and never a job that was interrupted before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overload_demo.config import Settings
from overload_demo.queue.consumer import MAX_LEASE_BYTES, Lease, LeasedJob, LeaseEnd, Settlement
from overload_demo.store.connect import Store
from overload_demo.worker.guards import Identity
from overload_demo.worker.journal import WorkerMetrics
from overload_demo.worker.lease_renewer import BATCH_TARGET_S, LeaseRenewer
from tests.support.network import Network
from tests.support.queues import Queue, ids_of, open_queue
from tests.support.running import make_settings
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

BATCH = 4
QUICK_S, SLOW_S = BATCH_TARGET_S / BATCH / 2, BATCH_TARGET_S / BATCH * 1.3


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path, worker_max_batch=BATCH)


@contextmanager
def leasing(settings: Settings, store: Store) -> Iterator[LeaseRenewer]:
    """A renewer, driven by the test as the worker's thread does it."""
    own = Identity("name", "name/0123456789abcdef")
    renewer = LeaseRenewer(settings, store, own, WorkerMetrics(), on_overdue=lambda _: None, on_lost=lambda _: None)
    try:
        yield renewer
    finally:
        renewer.close()


def run_batch(renewer: LeaseRenewer, job_s: float = QUICK_S) -> list[LeasedJob]:
    """Lease a batch and end its jobs, as if each had taken ``job_s`` seconds."""
    jobs = renewer.fetch().jobs
    for job in jobs:
        assert renewer.take() == job
        renewer.finish(Settlement(job, LeaseEnd.DONE, "{}", busy_s=job_s))
    return jobs


async def leased(queue: Queue) -> int:
    return int(await queue.redis("ZCARD", f"{queue.prefix}jobs:leases"))


async def test_two_batches_are_held_at_most_and_a_close_returns_them(settings: Settings, store: Store) -> None:
    async with open_queue(settings, store) as queue:
        ids = await queue.enqueue(5 * BATCH)
        with leasing(settings, store) as renewer:
            assert ids_of(run_batch(renewer)) == ids[:1], "how long a job takes is not known yet"
            assert ids_of(renewer.fetch().jobs) == ids[1 : 1 + BATCH]

            async def has_leased_ahead() -> bool:
                return await leased(queue) == 2 * BATCH

            await wait_until_async("the next batch is leased", has_leased_ahead)
            done = ids[:1] + ids_of(run_batch(renewer)) + ids_of(run_batch(renewer))
            assert done == ids[: len(done)]
            assert await leased(queue) <= 2 * BATCH

        assert await leased(queue) == 0
        assert [id for id in ids if await queue.state(id) == "done"] == done
        assert await queue.waiting() == ids[len(done) :]


async def test_slow_jobs_are_not_leased_ahead(settings: Settings, store: Store) -> None:
    async with open_queue(settings, store) as queue:
        await queue.enqueue(5 * BATCH)
        with leasing(settings, store) as renewer:
            run_batch(renewer, SLOW_S)
            held = [len(run_batch(renewer, SLOW_S)) for _ in range(3)]
            assert held == [BATCH - 1] * 3
            assert await leased(queue) <= BATCH - 1


async def test_an_interrupted_job_runs_while_its_worker_holds_no_other(settings: Settings, store: Store) -> None:
    async with open_queue(settings, store) as queue:
        ids = await queue.enqueue(5 * BATCH)
        interrupted = ids[1 + BATCH]
        await queue.redis("HSET", f"{queue.prefix}job:{interrupted}", "attempts", 1)
        with leasing(settings, store) as renewer:
            run_batch(renewer)
            assert ids_of(run_batch(renewer)) == ids[1 : 1 + BATCH]
            [job] = renewer.fetch().jobs

            assert (job.job_id, job.attempt) == (interrupted, 2), "the lease ahead has not cost an attempt"
            assert await leased(queue) == 1
            assert [id for id in ids if await queue.state(id) == "done"] == ids[: 1 + BATCH]


async def test_a_long_job_ends_the_leases_ahead_when_its_batch_is_released(settings: Settings, store: Store) -> None:
    settings = settings.model_copy(update={"worker_lease_s": 1.0})
    with Network(store).serving() as network:
        async with open_queue(settings, store) as queue:
            ids = await queue.enqueue(12, "x" * (MAX_LEASE_BYTES // 2 + 1))  # one job a lease
            network.delay_s = 0.1  # so that a tick waits for its turn while jobs are leased
            with leasing(settings, network.store) as renewer:
                for _ in range(3):
                    run_batch(renewer)
                renewer.fetch()
                job = renewer.take()
                assert job is not None

                async def holds_only_the_long_job() -> bool:
                    return ids_of([job]) == await queue.redis("ZRANGE", f"{queue.prefix}jobs:leases", 0, -1)

                async def renewals() -> set[str]:
                    seen.add(await queue.redis("ZSCORE", f"{queue.prefix}jobs:leases", job.job_id))
                    return seen

                async def was_renewed_thrice() -> bool:
                    return len(await renewals()) > 3

                async def has_leased_ahead() -> bool:
                    return await leased(queue) > 1

                await wait_until_async("jobs are leased behind the long one", has_leased_ahead)
                await wait_until_async("they are released", holds_only_the_long_job)
                seen: set[str] = set()
                leases = await queue.redis("HGET", f"{queue.prefix}jobs:stats", "fence")
                await wait_until_async("the long job's lease is renewed", was_renewed_thrice)
                assert await queue.redis("HGET", f"{queue.prefix}jobs:stats", "fence") == leases
                assert await queue.waiting() == ids[1 + ids.index(job.job_id) :]
                renewer.finish(Settlement(job, LeaseEnd.DONE, "{}", busy_s=1.0))


async def test_an_interrupted_job_that_arrives_late_is_released_unless_it_is_awaited(
    settings: Settings, store: Store
) -> None:
    async with open_queue(settings, store) as queue:
        ids = await queue.enqueue(BATCH)
        await queue.redis("HSET", f"{queue.prefix}job:{ids[-1]}", "attempts", 1)
        other = queue.worker("name/0123456789abcdef")
        with leasing(settings, store) as renewer:
            run_batch(renewer)
            rest = (await other.lease(BATCH)).jobs
            late = (await other.lease(BATCH)).jobs
            assert [job.attempt for job in late] == [2]
            renewer._add(Lease(rest, 1, 0), is_awaited=True)
            renewer._add(Lease(late, 0, 0))
            assert [job.job_id for job in renewer.fetch().jobs] == ids[1:-1]
        assert sorted(await queue.waiting()) == sorted(ids[1:])
        assert await queue.field(ids[-1], "attempts") == "1"
