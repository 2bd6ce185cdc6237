"""The routes: jobs, the queue's statistics, metrics, health, and the pages for a browser.

``/docs`` is Swagger UI from the installed ``fastapi_swagger``; the content security policy keeps it from loading
anything from elsewhere. The pages contain no data, so they need no API key.
"""

import asyncio
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response

from overload_demo import __version__
from overload_demo.api import contract, problems
from overload_demo.api.access import owner_of
from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.api.contract import SERVICE, Accepted, AnyJob, CancelledJob, HealthReport, Stats, job_body
from overload_demo.api.intake import PATH, JobIntakeRoute, submit
from overload_demo.errors import StoreError
from overload_demo.jobs import JOB_ID, JobRequest, JobState
from overload_demo.queue.producer import Producer
from overload_demo.queue.results import Results
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

intake = APIRouter(route_class=JobIntakeRoute)
reading = APIRouter()


@intake.post(
    PATH,
    status_code=202,
    response_model=Accepted,
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
    return await submit(request, job)


@reading.get(
    "/jobs/{job_id}",
    response_model=AnyJob,
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
    body, wait_s = job_body(job_id, status)
    headers = {} if wait_s is None else {"Retry-After": problems.retry_after(wait_s)}
    return Response(body, 200, headers, "application/json")


@reading.delete(
    "/jobs/{job_id}",
    response_model=CancelledJob,
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
    response_model=Stats,
    operation_id="get_stats",
    responses=contract.errors({503: NO_STORE}),
)
async def get_stats(request: Request) -> dict[str, Any]:
    """Return the queue's statistics, from one consistent read."""
    stats = await request.app.state.results.stats()
    return {
        **vars(stats),
        "estimated_wait_seconds": stats.estimated_wait_s,
        "rest_calls": stats.worker_rest_calls + request.app.state.upstash.calls,
        "timestamp": utc_now(),
    }


@reading.get(
    "/metrics", response_class=PlainTextResponse, operation_id="get_metrics", responses={200: contract.METRICS}
)
async def get_metrics(request: Request) -> Response:
    """Return all metrics for Prometheus. Always 200.

    While the store does not answer, ``overload_store_up`` is 0 and the queue's metrics are left out.
    """
    stats = None
    with suppress(StoreError, TimeoutError):
        stats = await asyncio.wait_for(request.app.state.results.stats(), SCRAPE_TIMEOUT_S)
    metrics: ApiMetrics = request.app.state.metrics
    body, media_type = metrics.exposition(stats, request.headers.get("accept", ""))
    return Response(body, media_type=media_type)


@reading.get("/health", response_model=HealthReport, response_model_exclude_none=True, operation_id="get_health")
async def get_health(request: Request) -> dict[str, Any]:
    """Report liveness. Always 200 while the API serves; ``status`` and ``queue_connected`` are about the store."""
    detail = None
    try:
        await request.app.state.results.ping()
    except StoreError as error:
        detail = str(error)
    return {
        "status": "degraded" if detail else "healthy",
        "service": SERVICE,
        "version": __version__,
        "queue_connected": detail is None,
        "timestamp": utc_now(),
        "durability": request.app.state.upstash.address.durability,
        "detail": detail,
    }


@reading.get(
    "/health/ready",
    response_model=HealthReport,
    response_model_exclude_none=True,
    operation_id="get_ready",
    responses=contract.errors({503: NO_STORE}),
)
async def get_ready(request: Request) -> Any:
    """Report readiness: 200 while the store answers, else 503."""
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
        title = f"{SERVICE} {__version__}"
        head = f'<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>{title}</title>'
        return HTMLResponse(f"{head}<h1>{title}</h1><ul>{items}</ul></html>", headers=headers)
    root_path = request.scope.get("root_path", "")
    urls = {name: f"{root_path}/{path}" for name, path in links.items()}
    return JSONResponse({"service": SERVICE, "version": __version__, **urls}, headers=headers)


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
