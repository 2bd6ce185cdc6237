"""taskiq with the acknowledging broker of taskiq-redis; the API starts it in its lifespan."""

from taskiq_redis import RedisStreamBroker

from experiments.bench.peers.job import do_job_async
from experiments.bench.peers.route import STORE_URL, app_with, between

broker = RedisStreamBroker(url=STORE_URL)
do_job = broker.task(do_job_async)
app = app_with(do_job.kiq, lambda sent: sent.task_id, lambda: between(broker.startup, broker.shutdown))
