"""Docket: a docket that the API opens in its lifespan, and the tasks that its worker starts with."""

from docket import Docket

from experiments.bench.peers.job import do_job_async
from experiments.bench.peers.route import STORE_URL, app_with

docket, tasks = Docket(url=STORE_URL), [do_job_async]
app = app_with(lambda payload: docket.add(do_job_async)(payload), lambda added: added.key, lambda: docket)
