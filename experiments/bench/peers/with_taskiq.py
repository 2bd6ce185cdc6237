"""taskiq with the broker of taskiq-redis that acknowledges; the API starts it in its lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from taskiq_redis import RedisStreamBroker

from experiments.bench.peers import job as work
from experiments.bench.peers.route import REDIS_URL, accepted
from overload_demo.api.models import Accepted
from overload_demo.jobs import JobRequest

broker = RedisStreamBroker(url=REDIS_URL)


@broker.task
async def do_job(payload: dict[str, Any]) -> None:
    """The job."""
    work.do_job(payload)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Connected while the API runs."""
    if not broker.is_worker_process:
        await broker.startup()
    yield
    if not broker.is_worker_process:
        await broker.shutdown()


app = FastAPI(lifespan=lifespan)


@app.post("/jobs", status_code=202, response_model=Accepted)
async def post_job(job: JobRequest, response: Response) -> Accepted:
    """Validate, enqueue, answer."""
    task = await do_job.kiq(job.model_dump())
    return accepted(response, task.task_id)
