"""The FastAPI app of every peer: the same route, with the peer's own call that submits a job."""

import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI, Response

from overload_demo.api.models import ACCEPTED_MESSAGE, Accepted
from overload_demo.jobs import JobRequest

REDIS_URL = os.environ.get("PEERS_REDIS_URL", "")
Submit = Callable[[dict[str, Any]], str | Awaitable[str]]
Hook = Callable[[], Awaitable[Any]]


def app_with(submit: Submit, connect: Hook | None = None, disconnect: Hook | None = None) -> FastAPI:
    """Return the app; ``submit`` enqueues a payload and returns the library's id of the job.

    A ``submit`` that blocks gets a ``def`` endpoint, which FastAPI runs in a thread, otherwise an ``async def`` one.
    ``connect`` and ``disconnect`` run in the lifespan.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if connect is not None:
            await connect()
        yield
        if disconnect is not None:
            await disconnect()

    def post_job(job: JobRequest, response: Response) -> Accepted:
        return _answer(response, cast(str, submit(job.model_dump())))

    async def post_job_async(job: JobRequest, response: Response) -> Accepted:
        return _answer(response, await cast(Awaitable[str], submit(job.model_dump())))

    app = FastAPI(lifespan=lifespan)
    endpoint = post_job_async if inspect.iscoroutinefunction(submit) else post_job
    app.post("/jobs", status_code=202, response_model=Accepted)(endpoint)
    return app


def accepted(response: Response, job_id: str) -> Accepted:
    """Return the body of a 202 and set its headers."""
    response.headers["Location"] = f"/jobs/{job_id}"
    response.headers["Retry-After"] = "1"
    return Accepted(status="accepted", job_id=job_id, message=ACCEPTED_MESSAGE)


def _answer(response: Response, library_id: str) -> Accepted:
    return accepted(response, f"job_{library_id.replace('-', '')}")  # all libraries use a UUID, with or without dashes
