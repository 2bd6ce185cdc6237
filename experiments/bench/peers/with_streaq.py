"""streaQ: its worker object is also the client, which the API opens in its lifespan."""

from streaq import Worker

from experiments.bench.peers.job import do_job_async
from experiments.bench.peers.route import AT_ONCE, STORE_URL, app_with

worker = Worker(redis_url=STORE_URL, concurrency=AT_ONCE)
do_job = worker.task(do_job_async)
app = app_with(do_job.enqueue, lambda queued: queued.id, lambda: worker)
