"""SAQ: a queue that the API connects in its lifespan, and the settings its worker is started with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from saq import Queue

from experiments.bench.peers import job as work
from experiments.bench.peers.route import REDIS_URL, accepted
from overload_demo.api.models import Accepted
from overload_demo.jobs import JobRequest

queue = Queue.from_url(REDIS_URL)


async def do_job(_context: dict[str, Any], *, payload: dict[str, Any]) -> None:
    """The job."""
    work.do_job(payload)


settings = {"queue": queue, "functions": [do_job]}


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Connected while the API runs."""
    await queue.connect()
    yield
    await queue.disconnect()


app = FastAPI(lifespan=lifespan)


@app.post("/jobs", status_code=202, response_model=Accepted)
async def post_job(job: JobRequest, response: Response) -> Accepted:
    """Validate, enqueue, answer."""
    queued = await queue.enqueue("do_job", payload=job.model_dump())
    assert queued is not None
    return accepted(response, queued.key)
