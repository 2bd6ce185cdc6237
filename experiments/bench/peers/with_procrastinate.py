"""Procrastinate on PostgreSQL; the API makes the tables and opens the connections in its lifespan."""

from procrastinate import App, PsycopgConnector

from experiments.bench.peers.job import do_job_async
from experiments.bench.peers.route import STORE_URL, app_with, between

queue = App(connector=PsycopgConnector(conninfo=STORE_URL))
do_job = queue.task(name="do_job")(do_job_async)


async def connect() -> None:
    """Open the connections, and make the tables of this new database."""
    await queue.open_async()
    await queue.schema_manager.apply_schema_async()


app = app_with(
    lambda payload: do_job.defer_async(payload=payload),
    lambda number: f"{number:x}",
    lambda: between(connect, queue.close_async),
)
