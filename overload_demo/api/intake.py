"""``POST /jobs``: from a request's bytes to a committed job.

The route stays an ordinary FastAPI route, with its OpenAPI and its validation errors. Its ``route_class`` answers a
plainly valid body itself (read once, pydantic's own JSON validator, prebuilt bytes) and hands everything else to
FastAPI's handler; a test compares both over a corpus.
"""

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from overload_demo.api.models import ACCEPTED_MESSAGE
from overload_demo.api.problems import from_error, retry_after
from overload_demo.errors import OverloadDemoError
from overload_demo.jobs import JobRequest, is_plainly_strict, new_job_id, why_not_strict
from overload_demo.queue.producer import NewJob, Producer

_validate_json = JobRequest.__pydantic_validator__.validate_json
MAX_IDEMPOTENCY_KEY = 255


class JobIntakeRoute(APIRoute):
    """A FastAPI route with a short cut for valid bodies and a strict look at all others."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook: the function that answers a request of this route."""
        ordinary = super().get_route_handler()

        async def handle(request: Request) -> Response:
            body = await _read_json_body(request, request.app.state.settings.overload_max_body_bytes)
            if is_plainly_strict(body):
                try:
                    _validate_json(body)
                except ValidationError:
                    pass  # FastAPI tells the client what is wrong
                else:
                    return await submit(request, body)
            refused = why_not_strict(body)
            if refused:
                kind, text = refused
                raise RequestValidationError([{"type": kind, "loc": ("body",), "msg": text}])
            return await ordinary(request)

        return handle


async def submit(request: Request, body: bytes) -> Response:
    """Enqueue a valid body; answers when the store has committed it, or says whether it may have."""
    producer: Producer = request.app.state.producer
    idem, fingerprint = _idempotency(request, body)
    job = NewJob(new_job_id(), body.decode(), idem, fingerprint)
    try:
        enqueued = await producer.enqueue(job)
    except OverloadDemoError as error:
        return from_error(error, job.job_id)
    return _Accepted(enqueued.job_id, enqueued.estimated_wait_s)


class _Accepted(Response):
    """The 202 with its bytes written down directly: this is the hot path."""

    def __init__(self, job_id: str, wait_s: float) -> None:
        self.status_code, self.background = 202, None
        self.body = f'{{"status":"accepted","job_id":"{job_id}","message":"{ACCEPTED_MESSAGE}"}}'.encode()
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            (b"location", b"/jobs/" + job_id.encode()),
            (b"retry-after", retry_after(wait_s).encode()),
        ]


async def _read_json_body(request: Request, limit: int) -> bytes:
    """The body, at most ``limit`` bytes, whatever the client declared. Raises 413 and 415."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise HTTPException(415, "send the job as application/json")
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


def _idempotency(request: Request, body: bytes) -> tuple[str, str]:
    """The record name and the body's fingerprint for a request with an Idempotency-Key, else two empty strings."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return "", ""
    key = key.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':  # the IETF draft's structured-field string
        key = key[1:-1]
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY:
        raise HTTPException(400, f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} characters")
    return hashlib.sha256(key.encode()).hexdigest(), hashlib.sha256(body).hexdigest()
