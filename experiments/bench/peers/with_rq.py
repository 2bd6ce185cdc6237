"""RQ: its client blocks, so the endpoint is a ``def`` that FastAPI runs in a thread."""

from fastapi import FastAPI, Response
from redis import Redis
from rq import Queue

from experiments.bench.peers.job import do_job
from experiments.bench.peers.route import REDIS_URL, accepted
from overload_demo.api.models import Accepted
from overload_demo.jobs import JobRequest

queue = Queue(connection=Redis.from_url(REDIS_URL))
app = FastAPI()


@app.post("/jobs", status_code=202, response_model=Accepted)
def post_job(job: JobRequest, response: Response) -> Accepted:
    """Validate, enqueue, answer."""
    return accepted(response, queue.enqueue(do_job, job.model_dump()).id)
