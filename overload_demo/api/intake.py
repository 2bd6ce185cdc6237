"""``POST /jobs`` as an ordinary FastAPI route, with its OpenAPI, its strict checks and its validation errors.

It answers the requests that ``direct.py`` passes on: those with an Idempotency-Key, an unusual encoding, or an error.
"""

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from overload_demo.api.access import owner_of
from overload_demo.api.contract import MAX_IDEMPOTENCY_KEY, accepted_body
from overload_demo.api.problems import from_error, retry_after
from overload_demo.api.request_context import log_accepted
from overload_demo.errors import OverloadDemoError
from overload_demo.jobs import JobRequest, new_job_id, why_not_strict
from overload_demo.queue.producer import NewJob, Producer

PATH = "/jobs"


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


async def submit(request: Request, job: JobRequest) -> Response:
    """Enqueue a valid body; returns once the store has committed it, or with the outcome of the failure."""
    body, owner = await request.body(), owner_of(request.scope)
    record, fingerprint = _idempotency(request, body, owner)
    new = NewJob(new_job_id(), body.decode(), record, fingerprint, owner, job.expires_in_s)
    producer: Producer = request.app.state.producer
    try:
        enqueued = await producer.enqueue(new)
    except OverloadDemoError as error:
        return from_error(error, new.job_id)
    log_accepted(enqueued.job_id)
    location = f"{request.scope.get('root_path', '')}/jobs/{enqueued.job_id}"
    headers = {"Location": location, "Retry-After": retry_after(enqueued.estimated_wait_s)}
    return Response(accepted_body(enqueued.job_id), 202, headers, "application/json")


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
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY:
        raise HTTPException(400, f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} characters")
    record = hashlib.sha256(key.encode()).hexdigest()
    return f"{owner}.{record}" if owner else record, hashlib.sha256(body).hexdigest()
