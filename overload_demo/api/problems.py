"""Every error as an RFC 9457 problem document: one line of ``detail``, never the input, never a secret."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from overload_demo.api import request_context as requests
from overload_demo.errors import (
    IdempotencyConflictError,
    OverloadDemoError,
    QueueFullError,
    StoreError,
    StoreQuotaError,
)

MEDIA_TYPE = "application/problem+json"
STORE_RETRY_AFTER_S = 2.0
QUOTA_RETRY_AFTER_S = 30.0  # the longest we ever say: it takes somebody to pay, or the next month


def retry_after(wait_s: float) -> str:
    """A ``Retry-After`` for somebody who has to wait about ``wait_s``: whole seconds, 1 to 30, with ±20 % jitter.

    The jitter keeps a crowd that was answered together from coming back together.
    """
    return str(min(30, max(1, math.ceil(wait_s * random.uniform(0.8, 1.2)))))


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """One problem document, with the request's id in its header; ``more`` are extension members, None is left out."""
    request_id = {requests.HEADER: requests.request_id()}
    return Response(document(status, detail, **more), status, {**request_id, **(headers or {})}, MEDIA_TYPE)


def document(status: int, detail: str, **more: Any) -> bytes:
    """The body of one."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return json.dumps(body | {name: value for name, value in more.items() if value is not None}).encode()


def validation_problem(errors: Sequence[Mapping[str, Any]]) -> Response:
    """422 for bodies that are JSON but not a job, 400 for those that are not even JSON."""
    if any(error["type"] == "json_invalid" for error in errors):
        return problem(400, str(errors[0].get("msg", "the body is not valid JSON")))
    shown = [{"loc": list(error["loc"]), "msg": error["msg"], "type": error["type"]} for error in errors]
    where = ".".join(str(part) for part in shown[0]["loc"])
    return problem(422, f"{where}: {shown[0]['msg']}", errors=shown)


def from_error(error: OverloadDemoError, job_id: str | None = None) -> Response:
    """The problem for one of our own errors; with an unknown outcome the ``job_id`` goes along, to be polled."""
    if isinstance(error, QueueFullError):
        headers = {"Retry-After": retry_after(error.retry_after_s)}
        return problem(429, str(error), headers, outcome=error.outcome)
    if isinstance(error, IdempotencyConflictError):
        return problem(422, str(error), outcome=error.outcome)
    requests.refused(503, str(error), job_id)
    unknown = job_id is not None and error.outcome == "unknown"
    advice = "poll the job_id before you submit it again" if unknown else "please retry"
    return problem(
        503,
        f"{error}; {advice}",
        {"Retry-After": retry_after(_wait_s(error))},
        outcome=error.outcome if job_id else None,
        job_id=job_id if unknown else None,
    )


def not_cancelled(error: StoreError, job_id: str) -> Response:
    """The problem for a cancel that the store did not confirm."""
    requests.refused(503, str(error), job_id)
    headers = {"Retry-After": retry_after(_wait_s(error))}
    return problem(503, f"{error}; please retry, a repeat is harmless", headers, outcome=error.outcome)


def _wait_s(error: OverloadDemoError) -> float:
    """Seconds until another try at the store makes sense."""
    return QUOTA_RETRY_AFTER_S if isinstance(error, StoreQuotaError) else STORE_RETRY_AFTER_S


def _allowed(request: Request) -> str:
    """All methods of a path; the router names only those of the first route that has it."""
    methods: set[str] = set()
    for route in request.app.router.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document."""

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            return problem(405, str(error.detail), {"Allow": _allowed(request)})
        return problem(error.status_code, str(error.detail), error.headers)

    async def on_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return validation_problem(error.errors())

    async def on_own(_: Request, error: Exception) -> Response:
        assert isinstance(error, OverloadDemoError)
        return from_error(error)

    async def on_disconnect(_: Request, __: Exception) -> Response:
        return problem(400, "the client went away before its request was complete")

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(StoreError, on_own)
    app.add_exception_handler(OverloadDemoError, on_own)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
