"""The bodies of the HTTP contract, as OpenAPI publishes them. Fields may be added, none renamed or dropped."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from overload_demo.jobs import JobState
from overload_demo.queue.results import JobStatus

ACCEPTED_MESSAGE = "Job queued successfully. Poll GET /jobs/{job_id} for status."
_MESSAGE = ACCEPTED_MESSAGE.encode()
_encode = json.JSONEncoder(separators=(",", ":")).encode
SERVICE = "overload-safe-queue-api"


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
    queue_position: int = Field(ge=1, description="1 = next; an upper bound: cancelled jobs ahead may still count")
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


class Stats(BaseModel):
    """The queue's statistics; counts since the store was created, rates over the last seconds."""

    queue_length: int = Field(description="jobs waiting, without those cancelled")
    estimated_wait_seconds: float = Field(description="for a job enqueued now, seconds")
    timestamp: UtcTime
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
    rest_calls: int = Field(description="HTTP exchanges with the store: this API process and all workers")


class HealthReport(BaseModel):
    """Liveness: 200 as soon as the API serves, also while the store does not answer."""

    status: Literal["healthy", "degraded"]
    service: str = Field(examples=[SERVICE])
    version: str
    queue_connected: bool
    timestamp: UtcTime
    durability: Literal["always", "everysec", "none", "unknown"] = Field(description="when an accepted job is on disk")
    detail: str | None = Field(None, description="the reason, while degraded")


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
