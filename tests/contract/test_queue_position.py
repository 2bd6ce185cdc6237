"""Hundreds of random steps: every position equals the place in the list, and no job is lost or done twice."""

import random
from collections.abc import Awaitable, Callable

import pytest

from overload_demo.queue.consumer import Consumer, LeasedJob, LeaseEnd
from tests.support.queues import Queue, settled

pytestmark = pytest.mark.anyio

STEPS = 300


class Model:
    """Random clients and workers over one queue, and the state that they expect."""

    def __init__(self, queue: Queue, seed: int) -> None:
        self.queue, self.random = queue, random.Random(seed)
        self.accepted: list[str] = []
        self.finished: dict[str, str] = {}
        self.workers = {name: queue.worker(name, worker_max_attempts=4) for name in ("a", "b", "c")}
        self.held: dict[str, list[LeasedJob]] = {name: [] for name in self.workers}
        self.late: list[tuple[Consumer, LeasedJob]] = []

    async def step(self) -> None:
        """One random event."""
        actions: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.enqueue, 8),
            (self.lease, 6),
            (self.finish, 5),
            (self.release, 3),
            (self.expire, 2),
            (self.restart, 1),
            (self.come_late, 2),
        ]
        [action] = self.random.choices([one for one, _ in actions], [weight for _, weight in actions])
        await action()

    async def enqueue(self) -> None:
        self.accepted += await self.queue.enqueue(self.random.randint(1, 3))

    async def lease(self) -> None:
        name = self.random.choice(list(self.workers))
        lease = await self.workers[name].lease(self.random.randint(1, 6))
        self.held[name] += lease.jobs

    async def finish(self) -> None:
        await self._settle(self.random.choice([LeaseEnd.DONE, LeaseEnd.DONE, LeaseEnd.FAILED, LeaseEnd.DEAD]))

    async def release(self) -> None:
        await self._settle(LeaseEnd.RELEASED)

    async def expire(self) -> None:
        """All leases of one worker expire without its knowledge."""
        name = self.random.choice(list(self.workers))
        await self.queue.expire_lease(*(job.job_id for job in self.held[name]))
        self._loses(name)

    async def restart(self) -> None:
        """A worker dies; the next one of its name returns its jobs."""
        name = self.random.choice(list(self.workers))
        self._loses(name)
        dead = self.workers[name].worker_id
        self.workers[name] = self.queue.worker(f"{dead}+", predecessors=[dead], worker_max_attempts=4)
        self.held[name] += (await self.workers[name].lease(2)).jobs

    async def come_late(self) -> None:
        """A result of a lost lease: it may count until the job is taken back, never after."""
        if self.late:
            worker, job = self.late.pop(self.random.randrange(len(self.late)))
            if await worker.settle([settled(job, text=f'"{job.fence}"')]) == 0 and job.job_id not in self.finished:
                self.finished[job.job_id] = await self.queue.state(job.job_id) or "gone"

    async def _settle(self, verdict: LeaseEnd) -> None:
        name = self.random.choice([name for name, jobs in self.held.items() if jobs] or ["a"])
        jobs = self.held[name][: self.random.randint(1, 4)]
        self.held[name] = self.held[name][len(jobs) :]
        if jobs:
            await self.workers[name].settle([settled(job, verdict, f'"{job.fence}"') for job in jobs])

    def _loses(self, name: str) -> None:
        self.late += [(self.workers[name], job) for job in self.held[name]]
        self.held[name] = []

    async def check(self) -> None:
        """Every promise that always holds."""
        waiting = await self.queue.waiting()
        assert len(waiting) == len(set(waiting))
        statuses = await self.queue.results.statuses(self.accepted)
        states = {}
        for job_id, status in zip(self.accepted, statuses, strict=True):
            assert status is not None, f"{job_id} is lost"
            states[job_id] = status.state.value
            if status.state == "queued":
                assert status.queue_position == waiting.index(job_id) + 1
        for job_id, state in self.finished.items():
            assert states[job_id] == state, "a finished job never changes"
        self.finished |= {one: state for one, state in states.items() if state in ("done", "failed")}
        stats = await self.queue.results.stats()
        terminal = sum(state in ("done", "failed") for state in states.values())
        assert stats.accepted == len(self.accepted)
        assert stats.accepted == stats.queue_length + stats.in_flight + terminal
        assert stats.done + stats.failed == terminal


async def test_positions_are_exact_and_no_job_is_lost_in_random_steps(queue: Queue) -> None:
    model = Model(queue, seed=1)
    for number in range(STEPS):
        await model.step()
        if number % 3 == 0:
            await model.check()
    await model.check()

    for name in model.workers:
        await model.queue.expire_lease(*(job.job_id for job in model.held[name]))
    last = queue.worker("last", worker_max_attempts=4)
    for _ in range(len(model.accepted) + 1):
        jobs = (await last.lease(10)).jobs
        if jobs:
            await last.settle([settled(job) for job in jobs])
    await model.check()

    assert len(model.finished) == len(model.accepted) > STEPS / 4
    assert await queue.waiting() == []


async def test_the_cost_of_a_position_does_not_grow_with_the_queue(queue: Queue) -> None:
    """Counted by the server: reading a position runs the same few commands in a short and in a long queue."""
    ids = await queue.enqueue(3)
    short = await read_cost(queue, ids[1])
    ids += await queue.enqueue(300)

    assert await read_cost(queue, ids[150]) == short
    assert "lpos" not in short
    status = await queue.status(ids[150])
    assert status is not None
    assert status.queue_position == 151


async def read_cost(queue: Queue, job_id: str) -> dict[str, int]:
    """Commands of one status call, by name."""
    await queue.status(job_id)
    before = await calls(queue)
    await queue.status(job_id)
    after = await calls(queue)
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}


async def calls(queue: Queue) -> dict[str, int]:
    info = str(await queue.redis("INFO", "commandstats"))
    lines = [line.removeprefix("cmdstat_") for line in info.split() if "calls=" in line]
    others = "info:", "replconf:", "ping:", "role:", "cluster|"  # this command, gateways and replicas
    lines = [line for line in lines if not line.startswith(others)]
    return {line.split(":")[0]: int(line.split("calls=")[1].split(",")[0]) for line in lines}
