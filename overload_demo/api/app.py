"""The routes. ``uvicorn overload_demo.api.app:app`` serves them too, without the front door's care."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from overload_demo import __version__
from overload_demo.api import problems
from overload_demo.api.hosts import HostCheck, HostRule
from overload_demo.api.intake import MAX_IDEMPOTENCY_KEY, PATH, JobIntakeRoute, ShortCut, submit
from overload_demo.api.keys import ApiKeys, KeyCheck, describe, owner_of
from overload_demo.api.models import SERVICE, Accepted, AnyJob, CancelledJob, Health, Problem, Stats
from overload_demo.api.pages import pages
from overload_demo.api.request_context import HEADER
from overload_demo.api.request_metrics import ApiMetrics
from overload_demo.config import Settings, load_settings
from overload_demo.errors import StoreError
from overload_demo.jobs import JOB_ID, JobRequest, JobState
from overload_demo.queue.producer import Producer
from overload_demo.queue.results import JobStatus, Results
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import Store, open_store
from overload_demo.work import utc_now

# The pool serves the senders of jobs (2), cancels (1) and reads (2), one shared statistics read and one ping, with a
# reserve.
CONNECTIONS = 8
SCRAPE_PATIENCE_S = 5.0  # for the queue's numbers: half of what Prometheus waits for all of them


def _retry_after(what: str, *, is_certain: bool = True) -> dict[str, Any]:
    """OpenAPI's description of the header."""
    return {"Retry-After": {"description": what, "required": is_certain, "schema": {"type": "integer", "minimum": 1}}}


def _problems(**whats: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of errors by their status; 429 and 503 say when to come again."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    described: dict[int | str, dict[str, Any]] = {}
    for name, what in whats.items():
        headers = {HEADER: {"description": "that of the request, or one made for it", "schema": {"type": "string"}}}
        if name in {"s429", "s503"}:
            headers |= _retry_after("seconds until another try makes sense")
        described[int(name.removeprefix("s"))] = {"description": what, "content": content, "headers": headers}
    return described


_ACCEPTED: dict[str, Any] = {
    "description": "the job is in the store",
    "headers": {
        "Location": {"description": "where to poll", "required": True, "schema": {"type": "string"}},
        **_retry_after("seconds until a poll makes sense"),
    },
    "links": {
        "status": {
            "operationId": "get_job",
            "parameters": {"job_id": "$response.body#/job_id"},
            "description": "where the job stands",
        }
    },
}
_FOUND: dict[str, Any] = {
    "description": "where the job stands",
    "headers": _retry_after("seconds until the next poll makes sense, while it is not finished", is_certain=False),
}
_IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "the same key and body get the same 202 and job again; the same key with another body is a 422",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY},
}
_NUMBERS: dict[str, Any] = {
    "description": "all numbers, in the format that Accept asks for",
    "content": {"application/openmetrics-text": {"schema": {"type": "string"}}},
}
DESCRIPTION = "Accepts jobs at once and stores them durably; a worker does them later. Poll a job for its result."
NO_SUCH_JOB = "no such job: unknown, or expired after it was done"
_STORE_GONE = "the store cannot be asked; carries Retry-After"

intake = APIRouter(route_class=JobIntakeRoute)
reading = APIRouter()


@intake.post(
    PATH,
    status_code=202,
    response_model=Accepted,
    operation_id="post_job",
    openapi_extra={"parameters": [_IDEMPOTENCY_KEY]},
    responses={
        202: _ACCEPTED,
        **_problems(
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
    responses={200: _FOUND, **_problems(s404="unknown or expired", s503=_STORE_GONE)},
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
    responses=_problems(
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


@reading.get("/queue/stats", response_model=Stats, operation_id="get_stats", responses=_problems(s503=_STORE_GONE))
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


@reading.get("/metrics", response_class=PlainTextResponse, operation_id="get_metrics", responses={200: _NUMBERS})
async def get_metrics(request: Request) -> Response:
    """All numbers for Prometheus. Always 200; while the store is gone, ``overload_store_up`` is 0 and the queue's are
    left out.
    """
    results: Results = request.app.state.results
    stats = None
    with suppress(StoreError, TimeoutError):
        stats = await asyncio.wait_for(results.stats(), SCRAPE_PATIENCE_S)
    metrics: ApiMetrics = request.app.state.metrics
    body, media_type = metrics.exposition(stats, request.headers.get("accept", ""))
    return Response(body, media_type=media_type)


@reading.get("/health", response_model=Health, response_model_exclude_none=True, operation_id="get_health")
async def get_health(request: Request) -> dict[str, Any]:
    """Liveness. Always 200 while the API serves; ``status`` and ``queue_connected`` tell of the store."""
    return await _health(request)


@reading.get(
    "/health/ready",
    response_model=Health,
    response_model_exclude_none=True,
    operation_id="get_ready",
    responses=_problems(s503=_STORE_GONE),
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


def _drop_invented_errors(schema: dict[str, Any]) -> None:
    """FastAPI invents a 422 wherever there is a parameter; here any path text is at worst an unknown id."""
    for path in schema["paths"].values():
        for operation in path.values():
            if operation["responses"].get("422", {}).get("description") == "Validation Error":
                del operation["responses"]["422"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(unused, None)


class _App(FastAPI):
    """FastAPI, with our own middleware around its layers: a request that takes the short cut needs none of them."""

    def build_middleware_stack(self) -> ASGIApp:
        """FastAPI's hook."""
        ours, self.user_middleware = self.user_middleware, []
        app = super().build_middleware_stack()
        for kind, args, kwargs in reversed(ours):
            app = kind(app, *args, **kwargs)
        return app


def create_app(
    settings: Settings | None = None, store: Store | None = None, metrics: ApiMetrics | None = None
) -> FastAPI:
    """The ASGI app. Without ``store`` it finds one by ``settings`` when it starts, and leaves it when it stops.

    ``metrics`` are what it counts in; without them, in numbers of its own.
    """
    counting = metrics or ApiMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        current = settings or load_settings()
        async with AsyncExitStack() as stack:
            opened = store
            if opened is None:
                opening = open_store(current)
                opened = await asyncio.to_thread(opening.__enter__)
                stack.push_async_callback(asyncio.to_thread, opening.__exit__, None, None, None)
            address, refresh = opened
            upstash = Upstash(
                address,
                connections=CONNECTIONS,
                timeout_s=current.overload_store_deadline_s,
                refresh=refresh,
                on_error=counting.store_error,
            )
            stack.push_async_callback(upstash.aclose)
            producer = Producer(upstash, current, on_commit=counting.committed)
            results = Results(upstash, current)
            stack.push_async_callback(results.aclose)
            stack.push_async_callback(producer.aclose)
            app.state.settings, app.state.upstash, app.state.keys = current, upstash, ApiKeys(current)
            app.state.hosts = HostRule(current.allowed_hosts)
            app.state.producer, app.state.results = producer, results
            yield

    app = _App(
        title="overload_demo",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page would fetch a viewer from the internet: /docs is our own
        redoc_url=None,
        redirect_slashes=False,  # its Location would repeat whatever Host was sent
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looking for it took 6 % of a request's time
    )
    app.state.metrics = counting
    app.add_middleware(ShortCut)
    if settings is None or settings.api_keys:  # without settings they are read when it starts
        app.add_middleware(KeyCheck)
    app.add_middleware(HostCheck)
    # Not include_router, which would put one more router around each request.
    app.router.routes.extend([*intake.routes, *reading.routes, *pages.routes])
    problems.install(app)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes, description=DESCRIPTION)
            schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            if (settings or app.state.settings).api_keys:
                describe(schema)
            _drop_invented_errors(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


app = create_app()
