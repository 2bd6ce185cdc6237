"""The FastAPI app of every peer: the same route, with the peer's own call that submits a job."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Literal

from fastapi import FastAPI, Response
from pydantic import BaseModel, Field

from overload_demo.jobs import JobRequest

MESSAGE = "Job queued successfully. Poll GET /jobs/{job_id} for status."

STORE_URL = os.environ.get("PEERS_STORE_URL", "")
AT_ONCE = int(os.environ.get("PEERS_AT_ONCE", 1))  # for a worker that takes its concurrency from its app
Hook = Callable[[], Awaitable[Any]]


class Accepted(BaseModel):
    """The body of a 202 as the contract has it, without the imports of our API, which these environments lack."""

    status: Literal["accepted"]
    job_id: str = Field(pattern="^job_[0-9a-f]+$")
    message: str


def app_with(
    submit: Callable[[dict[str, Any]], Any],
    id_of: Callable[[Any], object],
    connected: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
    *,
    blocks: bool = False,
) -> FastAPI:
    """Return the app; ``submit`` enqueues a payload, and ``id_of`` gives the library's id of the job that it returns.

    A ``submit`` that ``blocks`` gets a ``def`` endpoint, which FastAPI runs in a thread, otherwise an ``async def``
    one. The lifespan of the app is inside ``connected``.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with connected():
            yield

    def post_job(job: JobRequest, response: Response) -> Accepted:
        return _answer(response, id_of(submit(job.model_dump())))

    async def post_job_async(job: JobRequest, response: Response) -> Accepted:
        return _answer(response, id_of(await submit(job.model_dump())))

    app = FastAPI(lifespan=lifespan)
    app.post("/jobs", status_code=202, response_model=Accepted)(post_job if blocks else post_job_async)
    return app


@asynccontextmanager
async def between(connect: Hook, disconnect: Hook) -> AsyncIterator[None]:
    """Call one before the block, the other after it."""
    await connect()
    yield
    await disconnect()


def accepted(response: Response, job_id: str) -> Accepted:
    """Return the body of a 202 and set its headers."""
    response.headers["Location"] = f"/jobs/{job_id}"
    response.headers["Retry-After"] = "1"
    return Accepted(status="accepted", job_id=job_id, message=MESSAGE)


def _answer(response: Response, library_id: object) -> Accepted:
    return accepted(response, f"job_{library_id}".replace("-", ""))  # a UUID, with or without dashes, or a number
