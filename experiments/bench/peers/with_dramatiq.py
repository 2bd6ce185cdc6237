"""Dramatiq: its client blocks."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from experiments.bench.peers import job
from experiments.bench.peers.route import STORE_URL, app_with

dramatiq.set_broker(RedisBroker(url=STORE_URL))
do_job = dramatiq.actor(job.do_job)
app = app_with(do_job.send, lambda sent: sent.message_id, blocks=True)
