"""Celery: its client blocks."""

from celery import Celery

from experiments.bench.peers import job
from experiments.bench.peers.route import STORE_URL, app_with

celery = Celery("peers", broker=STORE_URL)
do_job = celery.task(job.do_job)
app = app_with(do_job.delay, lambda sent: sent.id, blocks=True)
