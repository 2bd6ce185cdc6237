"""The libraries: how each is asked and started by its own documentation, and what it says becomes of a killed job."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

HERE = "experiments.bench.peers"


class Worker(BaseModel):
    """One worker process by its documented command; ``at_once`` is how many jobs it does at a time by default.

    ``most_jobs`` keeps a drain of a slow one within some twenty seconds (measured on 2 cores with fsync always).
    """

    model_config = ConfigDict(frozen=True)

    name: str
    command: str
    at_once: str
    most_jobs: int = 10_000


class Library(BaseModel):
    """A job queue: what is installed, the kind of its endpoint, its workers (the first has all defaults).

    ``killed`` is what becomes of a job whose worker is killed (``kill -9``) while it runs, with the settings measured
    and as far as its documentation or source says; ``result`` is what is kept of a job that is done.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    requirements: tuple[str, ...]
    packages: tuple[str, ...]
    endpoint: Literal["async def", "def in a thread", "async, a thin route"]
    workers: tuple[Worker, ...]
    killed: str
    result: str

    @property
    def module(self) -> str:
        """Where its app is."""
        return f"{HERE}.with_{self.name.lower()}"


OURS = Library(
    name="overload_demo",
    requirements=(),
    packages=("overload-demo",),
    endpoint="async, a thin route",
    workers=(
        Worker(
            name="overload_demo", command="python -m overload_demo.worker --until-empty", at_once="1, leased in batches"
        ),
    ),
    killed="done again when its lease of 30 s has run out; dead after three interruptions",
    result="state and result, 1 h",
)

SAQ = Library(
    name="SAQ",
    requirements=("saq[redis]",),
    packages=("saq", "redis"),
    endpoint="async def",
    workers=(Worker(name="SAQ", command=f"saq {HERE}.with_saq.settings", at_once="10 coroutines"),),
    killed="found by a sweep once over its time limit (10 s) and aborted; done again only with retries above 1",
    result="state and result, 10 min",
)

ARQ = Library(
    name="arq",
    requirements=("arq",),
    packages=("arq", "redis"),
    endpoint="async def",
    workers=(
        Worker(
            name="arq",
            command=f"arq {HERE}.with_arq.WorkerSettings",
            at_once="10 coroutines, a look each 0.5 s",
            most_jobs=2_000,
        ),
        Worker(
            name="arq, poll_delay 0",
            command=f"arq {HERE}.with_arq.BusyWorkerSettings",
            at_once="10 coroutines, looking all the time",
            most_jobs=5_000,
        ),
    ),
    killed="stays in the queue; done again when its mark has run out (time limit + 10 s: 310 s), at most 5 times",
    result="state and result, 1 h",
)

RQ = Library(
    name="RQ",
    requirements=("rq",),
    packages=("rq", "redis"),
    endpoint="def in a thread",
    workers=(
        Worker(name="RQ", command="rq worker", at_once="1, a fork for each job", most_jobs=500),
        Worker(
            name="RQ, SimpleWorker",
            command="rq worker --worker-class rq.SimpleWorker",
            at_once="1, no fork",
            most_jobs=2_000,
        ),
    ),
    killed="moved to the failed jobs by another worker's maintenance; done again only when enqueued with Retry",
    result="state and result, 500 s",
)

CELERY = Library(
    name="Celery",
    requirements=("celery[redis]",),
    packages=("celery", "kombu", "redis"),
    endpoint="def in a thread",
    workers=(
        Worker(
            name="Celery",
            command=f"celery -A {HERE}.with_celery:celery worker --concurrency 1",
            at_once="1 in one child process",
            most_jobs=8_000,
        ),
    ),
    killed="lost: acknowledged before it runs; up to 4 fetched ahead come back after 1 h",
    result="nothing: no result backend",
)

DRAMATIQ = Library(
    name="Dramatiq",
    requirements=("dramatiq[redis]",),
    packages=("dramatiq", "redis"),
    endpoint="def in a thread",
    workers=(Worker(name="Dramatiq", command=f"dramatiq {HERE}.with_dramatiq --processes 1", at_once="8 threads"),),
    killed="acknowledged afterwards; requeued by others' maintenance when its worker was silent for 60 s",
    result="nothing: no result backend",
)

HUEY = Library(
    name="huey",
    requirements=("huey[redis]",),
    packages=("huey", "redis"),
    endpoint="def in a thread",
    workers=(Worker(name="huey", command=f"huey_consumer {HERE}.with_huey.huey", at_once="1 thread"),),
    killed="lost: taken off the list (BRPOP) before it runs",
    result="nothing: a result of None is not kept",
)

TASKIQ = Library(
    name="taskiq",
    requirements=("taskiq", "taskiq-redis"),
    packages=("taskiq", "taskiq-redis", "redis"),
    endpoint="async def",
    workers=(
        Worker(name="taskiq", command=f"taskiq worker {HERE}.with_taskiq:broker --workers 1", at_once="100 coroutines"),
    ),
    killed="acknowledged afterwards; claimed by another worker once 10 min old",
    result="nothing: no result backend",
)

LIBRARIES = (SAQ, ARQ, RQ, CELERY, DRAMATIQ, HUEY, TASKIQ)
