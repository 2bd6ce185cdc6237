"""Docket: a docket that the API opens in its lifespan, and the tasks that its worker starts with."""

from typing import Any

from docket import Docket

from experiments.bench.peers.job import do_job_async
from experiments.bench.peers.route import STORE_URL, app_with

docket, tasks = Docket(url=STORE_URL), [do_job_async]


async def submit(payload: dict[str, Any]) -> str:
    """Enqueue a job."""
    return str((await docket.add(do_job_async)(payload)).key)


app = app_with(submit, lambda: docket)
