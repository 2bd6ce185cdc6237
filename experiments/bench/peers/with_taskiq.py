"""taskiq with the acknowledging broker of taskiq-redis; the API starts it in its lifespan."""

from typing import Any

from taskiq_redis import RedisStreamBroker

from experiments.bench.peers.job import do_job_async
from experiments.bench.peers.route import STORE_URL, app_with, between

broker = RedisStreamBroker(url=STORE_URL)
do_job = broker.task(do_job_async)


async def submit(payload: dict[str, Any]) -> str:
    """Enqueue a job."""
    return str((await do_job.kiq(payload)).task_id)


app = app_with(submit, lambda: between(broker.startup, broker.shutdown))
