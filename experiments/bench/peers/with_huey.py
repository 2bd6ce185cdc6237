"""huey: its client blocks."""

from huey import RedisHuey

from experiments.bench.peers import job
from experiments.bench.peers.route import STORE_URL, app_with

huey = RedisHuey("peers", url=STORE_URL)
do_job = huey.task()(job.do_job)
app = app_with(do_job, lambda sent: sent.id, blocks=True)
