"""The HTTP contract: the bodies, and the OpenAPI document with what FastAPI cannot derive from the routes.

Fields may be added, none renamed or dropped.
"""

import json
from collections.abc import Set
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field

from overload_demo.api import problems
from overload_demo.api.request_context import HEADER
from overload_demo.jobs import JobState
from overload_demo.queue.results import JobStatus
from overload_demo.rest import DURABILITY_TEXT

ACCEPTED_MESSAGE = "Job queued successfully. Poll GET /jobs/{job_id} for status."
_MESSAGE = ACCEPTED_MESSAGE.encode()
_encode = json.JSONEncoder(separators=(",", ":")).encode
SERVICE = "overload-safe-queue-api"
MAX_IDEMPOTENCY_KEY = 255
DESCRIPTION = "Accepts jobs at once and stores them durably; a worker runs them later. Poll a job for its result."
SCHEME = "apiKey"
_PROBLEM = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def accepted_body(job_id: str) -> bytes:
    """Return the body of a 202, :class:`Accepted`."""
    return b'{"status":"accepted","job_id":"%b","message":"%b"}' % (job_id.encode(), _MESSAGE)


def job_body(job_id: str, status: JobStatus) -> tuple[bytes, float | None]:
    """Return the body of a job's state, ``AnyJob``, and the seconds until a poll makes sense; None: it has ended."""
    body: dict[str, Any] = {"status": status.state.value, "job_id": job_id}
    wait_s = None
    if status.state is JobState.QUEUED:
        body |= {"queue_position": status.queue_position, "estimated_wait_seconds": status.estimated_wait_s}
        wait_s = status.estimated_wait_s
    elif status.state is JobState.PROCESSING:
        body["started_at"] = status.started_at
        wait_s = 1.0
    elif status.state is JobState.DONE:
        body["result"] = status.result
    elif status.state is JobState.FAILED:
        body["error"] = status.error
    return _encode(body).encode(), wait_s


JobId = Annotated[str, Field(pattern="^job_[0-9a-f]+$", examples=["job_a1b2c3d4e5f60718293a4b5c6d7e8f90"])]
UtcTime = Annotated[str, Field(description="UTC, ISO 8601 with Z", examples=["2026-01-01T12:00:00.000Z"])]


class Accepted(BaseModel):
    """A job is in the store, durably."""

    status: Literal["accepted"]
    job_id: JobId
    message: str = Field(examples=[ACCEPTED_MESSAGE])


class QueuedJob(BaseModel):
    """A job is waiting."""

    status: Literal["queued"]
    job_id: JobId
    queue_position: int = Field(
        ge=1,
        description="1 = next; an upper bound: cancelled jobs ahead may still count; with several shards, approximate",
    )
    estimated_wait_seconds: float = Field(ge=0, description="position · service time ÷ max(1, live workers)")


class ProcessingJob(BaseModel):
    """A worker has leased the job."""

    status: Literal["processing"]
    job_id: JobId
    started_at: UtcTime


class DoneJob(BaseModel):
    """The job's result, written once; kept for QUEUE_RESULT_TTL seconds."""

    status: Literal["done"]
    job_id: JobId
    result: Any = Field(
        examples=[
            {
                "message": "Demo processing complete for 'my-demo-job'",
                "input_echo": {"name": "my-demo-job", "value": 42, "message": "Hello, World!", "processed_value": 84},
                "processed_at": "2026-01-01T12:00:02.000Z",
                "processing_duration_ms": 2001.5,
            }
        ]
    )


class FailedJob(BaseModel):
    """The job ended with an error; an expired job was never run."""

    status: Literal["failed"]
    job_id: JobId
    error: str


class CancelledJob(BaseModel):
    """The job was cancelled while it waited, and is never run."""

    status: Literal["cancelled"]
    job_id: JobId


AnyJob = Annotated[QueuedJob | ProcessingJob | DoneJob | FailedJob | CancelledJob, Field(discriminator="status")]


class QueueNumbers(BaseModel):
    """The numbers of a queue; counts since the store was created, rates over the last seconds."""

    queue_length: int = Field(description="jobs waiting, without those cancelled")
    in_flight: int = Field(description="jobs leased and not settled")
    oldest_age_s: float = Field(description="age of the job at the head, seconds")
    service_time_s: float = Field(description="seconds a job takes one worker, measured; else WORKER_PROCESSING_DELAY")
    drain_rate_per_s: float = Field(description="jobs settled a second, all workers together")
    workers_alive: int
    paused: bool = Field(description="no job is leased until the queue is resumed")
    accepted: int
    done: int
    failed: int = Field(description="ended with an error, dead and expired ones included")
    cancelled: int = Field(description="cancelled while they waited")
    expired: int = Field(description="not started within their expires_in_s")
    dead: int = Field(description="put on the dead-letter list")
    dead_letters: int = Field(description="entries of the dead-letter list now")
    interrupted: int = Field(description="leases that expired or were reclaimed; each means one more delivery")


class ShardNumbers(QueueNumbers):
    """The numbers of one shard."""

    shard: int
    estimated_wait_seconds: float = Field(validation_alias="estimated_wait_s", description="if all shards are as deep")


class Stats(QueueNumbers):
    """The queue's statistics; of several shards, the sums over those that answer."""

    estimated_wait_seconds: float = Field(description="for a job enqueued now, seconds")
    timestamp: UtcTime
    rest_calls: int = Field(description="HTTP exchanges with the store: this API process and all workers")
    shards: list[ShardNumbers] | None = Field(None, description="each shard that answers, if there are several")
    unreachable: list[str] | None = Field(None, description="each shard that does not answer, with the reason")


class HealthReport(BaseModel):
    """Liveness: 200 as soon as the API serves, also while the store does not answer."""

    status: Literal["healthy", "degraded"]
    service: str = Field(examples=[SERVICE])
    version: str
    queue_connected: bool
    timestamp: UtcTime
    durability: str = Field(
        pattern=DURABILITY_TEXT,
        examples=["always", "always+1"],
        description="when an accepted job is on disk; +1: one replica has it in memory too",
    )
    detail: str | None = Field(None, description="the reason, while degraded; names the shards that do not answer")


class Problem(BaseModel):
    """RFC 9457 problem document, the body of every error."""

    type: str = Field("about:blank", description="the kind of problem")
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = Field(None, description="the invalid fields, for 422")
    outcome: Literal["not_enqueued", "unknown"] | None = Field(
        None, description="whether the effect may have happened; unknown: poll job_id instead of submitting again"
    )
    job_id: JobId | None = None


def _retry_after(description: str, *, required: bool = True) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1}
    return {"Retry-After": {"description": description, "required": required, "schema": schema}}


def errors(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Describe problem responses by status; 401 carries ``WWW-Authenticate``, 429 and 503 ``Retry-After``."""
    described: dict[int | str, dict[str, Any]] = {}
    for status, description in descriptions.items():
        headers = {HEADER: {"description": "the request's id, generated if it had none", "schema": {"type": "string"}}}
        if status in {429, 503}:
            headers |= _retry_after("seconds until a retry makes sense")
        if status == 401:
            headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
        described[status] = {"description": description, "content": _PROBLEM, "headers": headers}
    return described


ACCEPTED: dict[str, Any] = {
    "description": "the job is in the store",
    "headers": {
        "Location": {"description": "where to poll", "required": True, "schema": {"type": "string"}},
        **_retry_after("seconds until a poll makes sense"),
    },
    "links": {
        "status": {
            "operationId": "get_job",
            "parameters": {"job_id": "$response.body#/job_id"},
            "description": "the state of the job",
        }
    },
}
FOUND: dict[str, Any] = {
    "description": "the state of the job",
    "headers": _retry_after("seconds until the next poll makes sense, while the job is not finished", required=False),
}
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "the same key and body get the same 202 and job again; the same key with another body is a 422",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY},
}
METRICS: dict[str, Any] = {
    "description": "all metrics, in the format that Accept requests",
    "content": {"application/openmetrics-text": {"schema": {"type": "string"}}},
}


def describe(app: FastAPI, open_paths: Set[str] | None) -> dict[str, Any]:
    """Return the OpenAPI document of ``app``. All paths but ``open_paths`` need an API key; None = no path does."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=DESCRIPTION)
    components = document["components"]
    components["schemas"]["Problem"] = Problem.model_json_schema()
    if open_paths is not None:
        components["securitySchemes"] = {SCHEME: {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            # FastAPI adds a 422 wherever there is a parameter; here any path text is at worst an unknown id.
            if responses.get("422", {}).get("description") == "Validation Error":
                del responses["422"]
            if open_paths is not None and path not in open_paths:
                operation["security"] = [{SCHEME: []}]
                responses["401"] = errors({401: "no key, or an unknown key"})[401]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    return document
