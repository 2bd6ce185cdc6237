"""taskiq with the acknowledging broker of taskiq-redis; the API starts it in its lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from taskiq_redis import RedisStreamBroker

from experiments.bench.peers import job
from experiments.bench.peers.route import REDIS_URL, app_with

broker = RedisStreamBroker(url=REDIS_URL)


@broker.task
async def do_job(payload: dict[str, Any]) -> None:
    """Do the job."""
    job.do_job(payload)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Stay connected while the API runs."""
    if not broker.is_worker_process:
        await broker.startup()
    yield
    if not broker.is_worker_process:
        await broker.shutdown()


async def submit(payload: dict[str, Any]) -> str:
    """Enqueue a job."""
    return str((await do_job.kiq(payload)).task_id)


app = app_with(submit, lifespan)
