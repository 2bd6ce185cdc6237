"""RQ: its client blocks."""

from redis import Redis
from rq import Queue

from experiments.bench.peers.job import do_job
from experiments.bench.peers.route import REDIS_URL, app_with

queue = Queue(connection=Redis.from_url(REDIS_URL))
app = app_with(lambda payload: str(queue.enqueue(do_job, payload).id))
