"""SAQ: a queue that the API connects in its lifespan, and the settings that its worker starts with."""

from typing import Any

from saq import Queue

from experiments.bench.peers import job
from experiments.bench.peers.route import AT_ONCE, STORE_URL, app_with, between

queue = Queue.from_url(STORE_URL)


async def do_job(_context: dict[str, Any], *, payload: dict[str, Any]) -> None:
    """Do the job."""
    job.do_job(payload)


settings = {"queue": queue, "functions": [do_job], "concurrency": AT_ONCE}
app = app_with(
    lambda payload: queue.enqueue("do_job", payload=payload),
    lambda queued: queued.key,
    lambda: between(queue.connect, queue.disconnect),
)
