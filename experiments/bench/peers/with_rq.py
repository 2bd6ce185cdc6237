"""RQ: its client blocks."""

from redis import Redis
from rq import Queue

from experiments.bench.peers.job import do_job
from experiments.bench.peers.route import STORE_URL, app_with

queue = Queue(connection=Redis.from_url(STORE_URL))
app = app_with(lambda payload: queue.enqueue(do_job, payload), lambda queued: queued.id, blocks=True)
