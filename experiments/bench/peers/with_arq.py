"""arq: a pool that the API opens in its lifespan, and the settings that its worker starts with."""

from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from experiments.bench.peers import job
from experiments.bench.peers.route import AT_ONCE, STORE_URL, app_with, between

SERVER = RedisSettings.from_dsn(STORE_URL)


async def do_job(_context: dict[str, Any], payload: dict[str, Any]) -> None:
    """Do the job."""
    job.do_job(payload)


class WorkerSettings:
    """All defaults."""

    functions = (do_job,)
    redis_settings = SERVER


class BusyWorkerSettings:
    """Poll without a pause instead of every half second, which otherwise dominates the measurement."""

    functions = (do_job,)  # not inherited: arq reads this class alone
    redis_settings = SERVER
    poll_delay = 0.0
    max_jobs = AT_ONCE


async def connect() -> None:
    """Open the pool."""
    app.state.pool = await create_pool(SERVER)


async def disconnect() -> None:
    """Close the pool."""
    await app.state.pool.aclose()


app = app_with(
    lambda payload: app.state.pool.enqueue_job("do_job", payload),
    lambda queued: queued.job_id,
    lambda: between(connect, disconnect),
)
