"""taskiq with the acknowledging broker of taskiq-redis; the API starts it in its lifespan."""

from typing import Any

from taskiq_redis import RedisStreamBroker

from experiments.bench.peers import job
from experiments.bench.peers.route import REDIS_URL, app_with

broker = RedisStreamBroker(url=REDIS_URL)


@broker.task
async def do_job(payload: dict[str, Any]) -> None:
    """Do the job."""
    job.do_job(payload)


async def submit(payload: dict[str, Any]) -> str:
    """Enqueue a job."""
    return str((await do_job.kiq(payload)).task_id)


app = app_with(submit, broker.startup, broker.shutdown)
