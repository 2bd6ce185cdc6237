"""Dramatiq: its client blocks, so the endpoint is a ``def`` that FastAPI runs in a thread."""

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from fastapi import FastAPI, Response

from experiments.bench.peers import job as work
from experiments.bench.peers.route import REDIS_URL, accepted
from overload_demo.api.models import Accepted
from overload_demo.jobs import JobRequest

dramatiq.set_broker(RedisBroker(url=REDIS_URL))


@dramatiq.actor
def do_job(payload: dict[str, Any]) -> None:
    """The job."""
    work.do_job(payload)


app = FastAPI()


@app.post("/jobs", status_code=202, response_model=Accepted)
def post_job(job: JobRequest, response: Response) -> Accepted:
    """Validate, enqueue, answer."""
    return accepted(response, do_job.send(job.model_dump()).message_id)
