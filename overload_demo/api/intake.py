"""``POST /jobs``: from a request's bytes to a committed job.

The route is an ordinary FastAPI route, with its OpenAPI and its validation errors. :class:`ShortCut` stands before
FastAPI's layers and answers requests with a plainly valid body, as nearly all have: read once, validated by pydantic's
JSON parser, answered from prebuilt bytes. It passes everything else on. A test compares both paths over a corpus.

Reading tour 6 of 13; next: overload_demo/queue/lua/lease.lua. Look for the statement after which a 202 is durable.
Question: which requests take FastAPI's way, and why?
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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overload_demo.api.access import owner_of
from overload_demo.api.models import ACCEPTED_MESSAGE
from overload_demo.api.problems import from_error, retry_after
from overload_demo.api.request_context import begin, log_accepted
from overload_demo.errors import OverloadDemoError
from overload_demo.jobs import JobRequest, is_plainly_strict, new_job_id, why_not_strict
from overload_demo.queue.producer import NewJob, Producer

_validate_json = JobRequest.__pydantic_validator__.validate_json
MAX_IDEMPOTENCY_KEY = 255
PATH = "/jobs"


class ShortCut:
    """ASGI middleware: answers a plainly valid ``POST /jobs`` itself and passes every other request on unchanged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] != PATH or not _is_plain(scope):
            if scope["type"] == "http" and scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}  # run the GET route; the server omits the body
            begin(scope)
            await self._app(scope, receive, send)
            return
        first = await receive()
        body = first.get("body", b"")
        state = scope["app"].state
        job = None if first.get("more_body") else _plainly_valid(body, state.settings.overload_max_body_bytes)
        if job is None:
            begin(scope)
            await self._app(scope, _repeating(first, receive), send)
            return
        new = NewJob(new_job_id(), body.decode(), owner=owner_of(scope), expires_in_s=job.expires_in_s)
        response = await _enqueue(state.producer, new, scope)
        await response(scope, receive, send)


def _is_plain(scope: Scope) -> bool:
    """Whether it is a POST of JSON without Idempotency-Key and Content-Encoding; puts an X-Request-ID into the log."""
    is_json = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            is_json = value == b"application/json"
        elif name == b"idempotency-key" or name == b"content-encoding":
            return False
        elif name == b"x-request-id":
            begin(scope)
    return is_json and scope["method"] == "POST"


def _plainly_valid(body: bytes, limit: int) -> JobRequest | None:
    if len(body) > limit or not is_plainly_strict(body):
        return None
    try:
        job: JobRequest = _validate_json(body)
    except ValidationError:
        return None  # FastAPI reports the error
    return job


def _repeating(first: Message, receive: Receive) -> Receive:
    """A ``receive`` that begins with a message already read."""
    unread = [first]

    async def again() -> Message:
        return unread.pop() if unread else await receive()

    return again


async def _enqueue(producer: Producer, job: NewJob, scope: Scope) -> Response:
    try:
        enqueued = await producer.enqueue(job)
    except OverloadDemoError as error:
        begin(scope)
        return from_error(error, job.job_id)
    log_accepted(enqueued.job_id)
    return _AcceptedResponse(enqueued.job_id, enqueued.estimated_wait_s, scope.get("root_path", ""))


class _AcceptedResponse(Response):
    """The 202, built from bytes: this is the hot path."""

    def __init__(self, job_id: str, wait_s: float, root_path: str) -> None:
        self.status_code, self.background = 202, None
        self.body = f'{{"status":"accepted","job_id":"{job_id}","message":"{ACCEPTED_MESSAGE}"}}'.encode()
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            (b"location", f"{root_path}/jobs/{job_id}".encode()),
            (b"retry-after", retry_after(wait_s).encode()),
        ]


# ---- the ordinary path


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
    return await _enqueue(request.app.state.producer, new, request.scope)


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
