"""A bounded queue under a crowd: one or two API processes accept exactly the jobs that fit."""

import asyncio
import json
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import aiohttp
import httpx
import pytest

from overload_demo.config import Settings
from overload_demo.errors import QueueFullError
from overload_demo.http_server import url_of
from overload_demo.jobs import new_job_id
from overload_demo.lab.parts import ApiThread
from overload_demo.queue.consumer import LeaseEnd, Settlement
from overload_demo.queue.producer import NewJob, Producer
from overload_demo.store.connect import Store
from tests.support.cases import plain_first
from tests.support.queues import END, START, Queue
from tests.support.running import JOB, listening, make_settings
from tests.support.stores import in_store

pytestmark = pytest.mark.anyio

CROWD = 1_000
# The crowd runs in this process too: on a busy machine the reply to a call may be read seconds after it has come.
PATIENT = {"overload_store_deadline_s": 30.0}


class Answer(NamedTuple):
    status: int
    retry_after_s: int
    body: dict[str, str]


async def fire(urls: list[str]) -> list[Answer]:
    """A thousand posts in parallel, in turn to each URL."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post(url: str) -> Answer:
            async with session.post(f"{url}/jobs", json=JOB) as answer:
                return Answer(answer.status, int(answer.headers["Retry-After"]), json.loads(await answer.read()))

        return await asyncio.gather(*(post(urls[number % len(urls)]) for number in range(CROWD)))


async def crowd(settings: Settings, store: Store, processes: int) -> tuple[list[Answer], dict[str, float]]:
    """The responses to a crowd by several APIs on one store, without a worker, and the statistics after it."""
    with ExitStack() as stack:
        urls = []
        for _ in range(processes):
            listeners = stack.enter_context(listening())
            part = ApiThread(settings, store, listeners)
            part.start()
            stack.callback(part.stop)
            urls.append(url_of(listeners))
        answers = await fire(urls)
        stats = await asyncio.to_thread(
            lambda: httpx.get(f"{urls[0]}/queue/stats", trust_env=False, timeout=30.0).json()
        )
    return answers, stats


@pytest.mark.parametrize("processes", plain_first([2, 1]))
@pytest.mark.parametrize(
    ("bounds", "room"),
    plain_first(
        [
            ({"overload_max_queue_depth": 100}, 100),
            ({"overload_max_wait_s": 50.0, "worker_processing_delay": 0.5}, 100),
            ({"overload_max_queue_depth": 100, "overload_max_wait_s": 20.0, "worker_processing_delay": 0.5}, 40),
        ],
        2,
    ),
    ids=["by depth", "by wait", "by both"],
)
async def test_exactly_as_many_as_fit_are_accepted(
    tmp_path: Path, store: Store, bounds: dict[str, float], room: int, processes: int
) -> None:
    settings = make_settings(tmp_path, **bounds, **PATIENT)

    answers, stats = await crowd(settings, store, processes)

    assert Counter(answer.status for answer in answers) == {202: room, 429: CROWD - room}
    accepted = {answer.body["job_id"] for answer in answers if answer.status == 202}
    jobs, waiting = in_store(settings, store)
    assert set(waiting) == accepted == jobs.keys()
    assert len(waiting) == room
    refused = [answer for answer in answers if answer.status == 429]
    assert {answer.body["outcome"] for answer in refused} == {"not_enqueued"}
    assert all(answer.retry_after_s >= 1 for answer in refused)
    assert (stats["queue_length"], stats["accepted"]) == (room, room)
    assert stats["estimated_wait_seconds"] == room * settings.worker_processing_delay


async def test_estimates_use_the_measured_service_time_and_live_workers(queue: Queue) -> None:
    """The service time of settled jobs replaces the default, and two workers halve the wait."""
    ids = await queue.enqueue(12)
    first, second = queue.worker("first"), queue.worker("second")
    jobs = (await first.lease(2)).jobs
    await first.settle([Settlement(job, LeaseEnd.DONE, '"ok"', START, END, 4.0) for job in jobs])

    one = await queue.results.stats()
    await second.lease(1)
    two = await queue.results.stats()

    assert (one.workers_alive, one.service_time_s, one.estimated_wait_s) == (1, 4.0, 40.0)
    assert (two.workers_alive, two.queue_length, two.estimated_wait_s) == (2, 9, 18.0)
    status = await queue.status(ids[-1])
    assert status is not None
    assert (status.queue_position, status.estimated_wait_s) == (9, 18.0)


async def test_the_bound_on_waiting_time_uses_the_same_estimates(queue: Queue) -> None:
    bounds = {"overload_max_wait_s": 20.0, "worker_processing_delay": 100.0}
    bounded = Producer(queue.upstash, queue.settings.model_copy(update=bounds))
    await queue.enqueue(1)
    worker = queue.worker("first")
    jobs = (await worker.lease(1)).jobs
    await worker.settle([Settlement(job, LeaseEnd.DONE, '"ok"', START, END, 4.0) for job in jobs])
    await queue.worker("second").lease(1)

    outcomes = await asyncio.gather(
        *(bounded.enqueue(NewJob(new_job_id(), "{}")) for _ in range(50)), return_exceptions=True
    )
    await bounded.aclose()

    assert sum(isinstance(one, QueueFullError) for one in outcomes) == 40
    assert len(await queue.waiting()) == 10


async def test_the_oldest_age_is_that_of_the_job_at_the_head(queue: Queue) -> None:
    ids = await queue.enqueue(2)
    assert 0 <= (await queue.results.stats()).oldest_age_s < 60
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    await queue.redis("HSET", f"{queue.prefix}job:{ids[0]}", "created_at", hour_ago.isoformat())

    assert 3600 <= (await queue.results.stats()).oldest_age_s < 3700
    await queue.worker().lease(1)
    assert 0 <= (await queue.results.stats()).oldest_age_s < 60
