"""The routes: jobs, the queue's statistics, metrics, health, and the pages for a browser.

``POST /jobs`` answers the requests that ``direct.py`` passes on: those with an Idempotency-Key, an unusual encoding, or
an error.

``/docs`` is Swagger UI from the installed ``fastapi_swagger``; the content security policy keeps it from loading
anything from elsewhere. The pages contain no data, so they need no API key.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response

from overload_demo import __version__
from overload_demo.api import contract, problems
from overload_demo.api.access import owner_of
from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.api.request_context import log_accepted
from overload_demo.errors import OverloadDemoError, StoreError
from overload_demo.jobs import JOB_ID, JobRequest, JobState, new_job_id, why_not_strict
from overload_demo.queue.producer import NewJob, Producer
from overload_demo.queue.results import QueueStats, Results
from overload_demo.work import utc_now

SCRAPE_TIMEOUT_S = 5.0  # for the queue's metrics: half of Prometheus's default scrape timeout
NO_STORE = "the store does not answer; carries Retry-After"
STATIC = Path(__file__).with_name("static")
SWAGGER = Path(str(files("fastapi_swagger"))) / "resources"
ASSETS = dict.fromkeys(("docs.html", "docs.js"), STATIC)
ASSETS |= dict.fromkeys(("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"), SWAGGER)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
LINKS = {"docs": "docs", "openapi": "openapi.json", "health": "health"}
LINKS |= {"ready": "health/ready", "stats": "queue/stats", "metrics": "metrics"}
OPEN_PATHS = {"/", "/docs", *(f"/docs/{name}" for name in ASSETS), "/health", "/health/ready", "/openapi.json"}


class JobIntakeRoute(APIRoute):
    """A FastAPI route that checks the body strictly before FastAPI parses it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request of this route (FastAPI's hook)."""
        ordinary = super().get_route_handler()

        async def handle(request: Request) -> Response:
            body = await _read_json_body(request, request.app.state.settings.overload_max_body_bytes)
            if reason := why_not_strict(body):
                raise RequestValidationError([{"type": reason[0], "loc": ("body",), "msg": reason[1]}])
            return await ordinary(request)

        return handle


async def _read_json_body(request: Request, limit: int) -> bytes:
    """Read the body, at most ``limit`` bytes, whatever length the client declared. Raises 413 and 415."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise HTTPException(415, "send the job as application/json")
    codings = {coding.strip().lower() for coding in ",".join(request.headers.getlist("content-encoding")).split(",")}
    if codings - {"", "identity"}:
        raise HTTPException(415, "send the job without a Content-Encoding", {"Accept-Encoding": "identity"})
    too_large = HTTPException(413, f"the body is larger than {limit} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    request._body = body  # where Starlette keeps it, for FastAPI's own handler
    return body


def _idempotency(request: Request, body: bytes, owner: str) -> tuple[str, str]:
    """Return record name and body fingerprint of a request with an Idempotency-Key, else two empty strings.

    The same key of two owners is two records.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return "", ""
    key = key.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':  # the IETF draft's structured-field string
        key = key[1:-1]
    if not 1 <= len(key) <= contract.MAX_IDEMPOTENCY_KEY:
        raise HTTPException(400, f"Idempotency-Key must have 1 to {contract.MAX_IDEMPOTENCY_KEY} characters")
    record = hashlib.sha256(key.encode()).hexdigest()
    return f"{owner}.{record}" if owner else record, hashlib.sha256(body).hexdigest()


intake = APIRouter(route_class=JobIntakeRoute)
reading = APIRouter()


@intake.post(
    "/jobs",
    status_code=202,
    response_model=contract.Accepted,
    operation_id="post_job",
    openapi_extra={"parameters": [contract.IDEMPOTENCY_KEY]},
    responses={
        202: contract.ACCEPTED,
        **contract.errors(
            {
                400: "not JSON, or an unusable Idempotency-Key",
                413: "the body is too large",
                415: "not application/json",
                422: "JSON, but not a job; or the Idempotency-Key was used before with another body",
                429: "a configured bound on the queue refuses the job; carries Retry-After",
                503: "the store did not confirm; outcome is whether it may have enqueued; carries Retry-After",
            }
        ),
    },
)
async def post_job(job: JobRequest, request: Request) -> Response:
    """Submit a job. Returns as soon as the store has committed it; with an Idempotency-Key a repeat is harmless."""
    body, owner = await request.body(), owner_of(request.scope)
    record, fingerprint = _idempotency(request, body, owner)
    new = NewJob(new_job_id(), body.decode(), record, fingerprint, owner, job.expires_in_s)
    producer: Producer = request.app.state.producer
    try:
        enqueued = await producer.enqueue(new)
    except OverloadDemoError as error:
        return problems.from_error(error, new.job_id)  # the id that it had last: a shard may have changed it
    log_accepted(enqueued.job_id)
    location = f"{request.scope.get('root_path', '')}/jobs/{enqueued.job_id}"
    headers = {"Location": location, "Retry-After": problems.retry_after(enqueued.estimated_wait_s)}
    return Response(contract.accepted_body(enqueued.job_id), 202, headers, "application/json")


@reading.get(
    "/jobs/{job_id}",
    response_model=contract.AnyJob,
    operation_id="get_job",
    responses={200: contract.FOUND, **contract.errors({404: problems.NO_SUCH_JOB, 503: NO_STORE})},
)
async def get_job(job_id: str, request: Request) -> Response:
    """Return the state of a job, and its result once it is done."""
    results: Results = request.app.state.results
    status = await results.status(job_id) if JOB_ID.fullmatch(job_id) else None
    owner = owner_of(request.scope)
    if status is None or (owner and status.owner != owner):
        raise HTTPException(404, problems.NO_SUCH_JOB)
    body, wait_s = contract.job_body(job_id, status)
    headers = {} if wait_s is None else {"Retry-After": problems.retry_after(wait_s)}
    return Response(body, 200, headers, "application/json")


@reading.delete(
    "/jobs/{job_id}",
    response_model=contract.CancelledJob,
    operation_id="delete_job",
    responses=contract.errors(
        {
            404: problems.NO_SUCH_JOB,
            409: "the job is running or has ended",
            503: "the store did not confirm; outcome is whether it may have cancelled; a repeat is harmless",
        }
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
        raise HTTPException(404, problems.NO_SUCH_JOB)
    if state is not JobState.CANCELLED:
        raise HTTPException(409, f"only a job that is queued can be cancelled; this one is {state.value}")
    return JSONResponse({"status": state.value, "job_id": job_id})


@reading.get(
    "/queue/stats",
    response_model=contract.Stats,
    operation_id="get_stats",
    response_model_exclude_none=True,
    responses=contract.errors({503: NO_STORE}),
)
async def get_stats(request: Request) -> dict[str, Any]:
    """Return the queue's statistics, from one consistent read of each shard. 503 if no shard answers."""
    stats: QueueStats = await request.app.state.results.stats()
    numbers = {
        **vars(stats),
        "estimated_wait_seconds": stats.estimated_wait_s,
        "rest_calls": stats.worker_rest_calls + sum(client.calls for client in request.app.state.clients),
        "timestamp": utc_now(),
        "shards": None,
    }
    if stats.shards:
        shards = enumerate(stats.shards)
        numbers["shards"] = [vars(one) | {"shard": n} for n, one in shards if isinstance(one, QueueStats)]
        numbers["unreachable"] = stats.unreachable
    return numbers


@reading.get(
    "/metrics", response_class=PlainTextResponse, operation_id="get_metrics", responses={200: contract.METRICS}
)
async def get_metrics(request: Request) -> Response:
    """Return all metrics for Prometheus. Always 200.

    While the store or a shard does not answer, its ``overload_store_up`` is 0 and its queue's metrics are left out.
    """
    shards: Sequence[QueueStats | StoreError | None] = [None] * len(request.app.state.clients)
    with suppress(StoreError, TimeoutError):
        stats = await asyncio.wait_for(request.app.state.results.stats(), SCRAPE_TIMEOUT_S)
        shards = stats.shards or [stats]
    metrics: ApiMetrics = request.app.state.metrics
    body, media_type = metrics.exposition(shards, request.headers.get("accept", ""))
    return Response(body, media_type=media_type)


@reading.get(
    "/health", response_model=contract.HealthReport, response_model_exclude_none=True, operation_id="get_health"
)
async def get_health(request: Request) -> dict[str, Any]:
    """Report liveness. Always 200 while the API serves; ``status`` and ``queue_connected`` are about the store.

    With several shards, ``detail`` names those that do not answer; it is connected while one does.
    """
    state, is_connected = request.app.state, True
    try:
        detail = await state.results.ping()
    except StoreError as error:
        detail, is_connected = str(error), False
    return {
        "status": "degraded" if detail else "healthy",
        "service": contract.SERVICE,
        "version": __version__,
        "queue_connected": is_connected,
        "timestamp": utc_now(),
        "durability": state.clients[0].address.durability_with(state.settings.overload_min_replicas),
        "detail": detail or None,
    }


@reading.get(
    "/health/ready",
    response_model=contract.HealthReport,
    response_model_exclude_none=True,
    operation_id="get_ready",
    responses=contract.errors({503: NO_STORE}),
)
async def get_ready(request: Request) -> Any:
    """Report readiness: 200 while the store, or one shard of several, answers; else 503."""
    health = await get_health(request)
    if not health["queue_connected"]:
        headers = {"Retry-After": problems.retry_after(problems.STORE_RETRY_AFTER_S)}
        return problems.problem(503, health["detail"], headers)
    return health


@reading.get("/", include_in_schema=False)
async def get_root(request: Request) -> Response:
    """Return the service's name, version and links: JSON, or HTML for a browser."""
    links = {name: path for name, path in LINKS.items() if name != "docs" or _has_docs(request)}
    headers = HEADERS | {"Vary": "Accept"}
    if "text/html" in request.headers.get("accept", ""):
        items = "".join(f'<li><a href="{path}">{name}</a></li>' for name, path in links.items())
        title = f"{contract.SERVICE} {__version__}"
        head = f'<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>{title}</title>'
        return HTMLResponse(f"{head}<h1>{title}</h1><ul>{items}</ul></html>", headers=headers)
    root_path = request.scope.get("root_path", "")
    urls = {name: f"{root_path}/{path}" for name, path in links.items()}
    return JSONResponse({"service": contract.SERVICE, "version": __version__, **urls}, headers=headers)


@reading.get("/docs", include_in_schema=False)
@reading.get("/docs/{asset}", include_in_schema=False)
async def get_docs(request: Request) -> Response:
    """Return the interactive description or a file of it; 404 while OVERLOAD_DOCS is off."""
    name = request.path_params.get("asset", "docs.html")
    if not _has_docs(request) or name not in ASSETS:
        raise HTTPException(404)
    return FileResponse(ASSETS[name] / name, headers=HEADERS)


def _has_docs(request: Request) -> bool:
    return bool(request.app.state.settings.overload_docs)
