"""arq: a pool that the API opens in its lifespan, and the settings its worker is started with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI, Request, Response

from experiments.bench.peers import job as work
from experiments.bench.peers.route import REDIS_URL, accepted
from overload_demo.api.models import Accepted
from overload_demo.jobs import JobRequest

SERVER = RedisSettings.from_dsn(REDIS_URL)


async def do_job(_context: dict[str, Any], payload: dict[str, Any]) -> None:
    """The job."""
    work.do_job(payload)


class WorkerSettings:
    """All defaults."""

    functions = (do_job,)
    redis_settings = SERVER


class BusyWorkerSettings:
    """It looks for jobs all the time instead of every half second, which otherwise is what one measures."""

    functions = (do_job,)  # not inherited: arq reads this class alone
    redis_settings = SERVER
    poll_delay = 0.0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connected while the API runs."""
    app.state.pool = await create_pool(SERVER)
    yield
    await app.state.pool.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/jobs", status_code=202, response_model=Accepted)
async def post_job(job: JobRequest, request: Request, response: Response) -> Accepted:
    """Validate, enqueue, answer."""
    queued = await request.app.state.pool.enqueue_job("do_job", job.model_dump())
    return accepted(response, queued.job_id)
