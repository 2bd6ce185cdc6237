"""SAQ: a queue that the API connects in its lifespan, and the settings that its worker starts with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from saq import Queue

from experiments.bench.peers import job
from experiments.bench.peers.route import REDIS_URL, app_with

queue = Queue.from_url(REDIS_URL)


async def do_job(_context: dict[str, Any], *, payload: dict[str, Any]) -> None:
    """Do the job."""
    job.do_job(payload)


settings = {"queue": queue, "functions": [do_job]}


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Stay connected while the API runs."""
    await queue.connect()
    yield
    await queue.disconnect()


async def submit(payload: dict[str, Any]) -> str:
    """Enqueue a job."""
    queued = await queue.enqueue("do_job", payload=payload)
    assert queued is not None
    return str(queued.key)


app = app_with(submit, lifespan)
