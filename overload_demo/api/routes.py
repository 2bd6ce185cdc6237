"""The routes, except those for a browser."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from overload_demo import __version__
from overload_demo.api import openapi, problems
from overload_demo.api.access import owner_of
from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.api.intake import PATH, JobIntakeRoute, submit
from overload_demo.api.models import SERVICE, Accepted, AnyJob, CancelledJob, HealthReport, Stats
from overload_demo.errors import StoreError
from overload_demo.jobs import JOB_ID, JobRequest, JobState
from overload_demo.queue.producer import Producer
from overload_demo.queue.results import JobStatus, Results
from overload_demo.rest.client import Upstash
from overload_demo.work import utc_now

SCRAPE_TIMEOUT_S = 5.0  # for the queue's numbers: half of Prometheus' default scrape timeout
NO_SUCH_JOB = "no such job: unknown, or expired after it was done"

intake = APIRouter(route_class=JobIntakeRoute)
reading = APIRouter()


@intake.post(
    PATH,
    status_code=202,
    response_model=Accepted,
    operation_id="post_job",
    openapi_extra={"parameters": [openapi.IDEMPOTENCY_KEY]},
    responses={
        202: openapi.ACCEPTED,
        **openapi.errors(
            s400="not JSON, or an unusable Idempotency-Key",
            s413="the body is too large",
            s415="not application/json",
            s422="JSON, but not a job; or the Idempotency-Key came with another body before",
            s429="a configured bound on the queue refuses the job; carries Retry-After",
            s503="the store did not confirm; outcome tells whether it may have enqueued; carries Retry-After",
        ),
    },
)
async def post_job(job: JobRequest, request: Request) -> Response:
    """Submit a job. Returns as soon as the store has committed it; with an Idempotency-Key a repeat is harmless."""
    return await submit(request, job)


@reading.get(
    "/jobs/{job_id}",
    response_model=AnyJob,
    operation_id="get_job",
    responses={200: openapi.FOUND, **openapi.errors(s404="unknown or expired", s503=openapi.STORE_UNAVAILABLE)},
)
async def get_job(job_id: str, request: Request) -> Response:
    """Where a job stands, and its result once it is done."""
    results: Results = request.app.state.results
    status = await results.status(job_id) if JOB_ID.fullmatch(job_id) else None
    if status is None or (owner_of(request.scope) and status.owner != owner_of(request.scope)):
        raise HTTPException(404, NO_SUCH_JOB)
    return _job_response(job_id, status)


@reading.delete(
    "/jobs/{job_id}",
    response_model=CancelledJob,
    operation_id="delete_job",
    responses=openapi.errors(
        s404="unknown or expired",
        s409="it runs already, or has ended",
        s503="the store did not confirm; outcome tells whether it may have been cancelled, and a repeat is harmless",
    ),
)
async def delete_job(job_id: str, request: Request) -> Response:
    """Cancel a job that is waiting; it is never run. Repeating it is harmless. A running job cannot be cancelled."""
    producer: Producer = request.app.state.producer
    try:
        state = await producer.cancel(job_id, owner_of(request.scope)) if JOB_ID.fullmatch(job_id) else None
    except StoreError as error:
        return problems.not_cancelled(error, job_id)
    if state is None:
        raise HTTPException(404, NO_SUCH_JOB)
    if state is not JobState.CANCELLED:
        raise HTTPException(409, f"only a job that is queued can be cancelled; this one is {state.value}")
    return _job_response(job_id, JobStatus(state, 0, 0.0, "", None, ""))


@reading.get(
    "/queue/stats",
    response_model=Stats,
    operation_id="get_stats",
    responses=openapi.errors(s503=openapi.STORE_UNAVAILABLE),
)
async def get_stats(request: Request) -> dict[str, Any]:
    """The queue's numbers in one consistent look."""
    results: Results = request.app.state.results
    stats = await results.stats()
    upstash: Upstash = request.app.state.upstash
    return {
        **vars(stats),
        "estimated_wait_seconds": stats.estimated_wait_s,
        "rest_calls": stats.worker_rest_calls + upstash.calls,
        "timestamp": utc_now(),
    }


@reading.get("/metrics", response_class=PlainTextResponse, operation_id="get_metrics", responses={200: openapi.METRICS})
async def get_metrics(request: Request) -> Response:
    """All numbers for Prometheus. Always 200; while the store is gone, ``overload_store_up`` is 0 and the queue's are
    left out.
    """
    results: Results = request.app.state.results
    stats = None
    with suppress(StoreError, TimeoutError):
        stats = await asyncio.wait_for(results.stats(), SCRAPE_TIMEOUT_S)
    metrics: ApiMetrics = request.app.state.metrics
    body, media_type = metrics.exposition(stats, request.headers.get("accept", ""))
    return Response(body, media_type=media_type)


@reading.get("/health", response_model=HealthReport, response_model_exclude_none=True, operation_id="get_health")
async def get_health(request: Request) -> dict[str, Any]:
    """Liveness. Always 200 while the API serves; ``status`` and ``queue_connected`` tell of the store."""
    return await _health(request)


@reading.get(
    "/health/ready",
    response_model=HealthReport,
    response_model_exclude_none=True,
    operation_id="get_ready",
    responses=openapi.errors(s503=openapi.STORE_UNAVAILABLE),
)
async def get_ready(request: Request) -> Any:
    """Readiness: 200 while the store answers, else 503."""
    health = await _health(request)
    if not health["queue_connected"]:
        headers = {"Retry-After": problems.retry_after(problems.STORE_RETRY_AFTER_S)}
        return problems.problem(503, health["detail"], headers)
    return health


async def _health(request: Request) -> dict[str, Any]:
    state = request.app.state
    detail = None
    try:
        await state.results.ping()
    except StoreError as error:
        detail = str(error)
    return {
        "status": "degraded" if detail else "healthy",
        "service": SERVICE,
        "version": __version__,
        "queue_connected": detail is None,
        "timestamp": utc_now(),
        "durability": state.upstash.address.durability,
        "detail": detail,
    }


def _job_response(job_id: str, status: JobStatus) -> Response:
    """The body by state; a job that is still on its way also says when to look again."""
    headers: dict[str, str] = {}
    body: dict[str, Any] = {"status": status.state.value, "job_id": job_id}
    if status.state is JobState.QUEUED:
        body |= {"queue_position": status.queue_position, "estimated_wait_seconds": status.estimated_wait_s}
        headers["Retry-After"] = problems.retry_after(status.estimated_wait_s)
    elif status.state is JobState.PROCESSING:
        body["started_at"] = status.started_at
        headers["Retry-After"] = "1"
    elif status.state is JobState.DONE:
        body["result"] = status.result
    elif status.state is JobState.FAILED:
        body["error"] = status.error
    return Response(json.dumps(body, separators=(",", ":")), 200, headers, "application/json")
