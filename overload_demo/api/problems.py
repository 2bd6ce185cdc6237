"""Every error as an RFC 9457 problem document: one line of ``detail``, never the input, never a secret."""

import json
import math
import random
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request
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
NO_SUCH_JOB = "no such job: unknown, or expired after it was done"
STORE_RETRY_AFTER_S = 2.0
QUOTA_RETRY_AFTER_S = 30.0  # the longest: the quota lasts until the plan is upgraded or the month ends


def retry_after(wait_s: float) -> str:
    """Return a ``Retry-After``: whole seconds, 1 to 30, with ±20 % jitter, which spreads retries."""
    return str(min(30, max(1, math.ceil(wait_s * random.uniform(0.8, 1.2)))))


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """Return a problem response with the request's id in its header; ``members`` that are None are left out."""
    request_id = {requests.HEADER: requests.request_id()}
    return Response(document(status, detail, **members), status, {**request_id, **(headers or {})}, MEDIA_TYPE)


def document(status: int, detail: str, **members: Any) -> bytes:
    """Return the body of a problem response."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return json.dumps(body | {name: value for name, value in members.items() if value is not None}).encode()


def from_error(error: OverloadDemoError, job_id: str | None = None) -> Response:
    """Return the response for an error of this package; with an unknown outcome it carries the ``job_id`` to poll."""
    if isinstance(error, QueueFullError):
        return problem(429, str(error), {"Retry-After": retry_after(error.retry_after_s)}, outcome=error.outcome)
    if isinstance(error, IdempotencyConflictError):
        return problem(422, str(error), outcome=error.outcome)
    is_unknown = job_id is not None and error.outcome == "unknown"
    advice = "poll the job_id before you submit it again" if is_unknown else "please retry"
    outcome = error.outcome if job_id else None
    return _unavailable(error, job_id, advice, outcome=outcome, job_id=job_id if is_unknown else None)


def not_cancelled(error: StoreError, job_id: str) -> Response:
    """Return the response for a cancellation that the store did not confirm."""
    return _unavailable(error, job_id, "please retry, a repeat is harmless", outcome=error.outcome)


def _unavailable(error: OverloadDemoError, about: str | None, advice: str, **members: Any) -> Response:
    requests.log_unavailable(str(error), about)
    wait_s = QUOTA_RETRY_AFTER_S if isinstance(error, StoreQuotaError) else STORE_RETRY_AFTER_S
    return problem(503, f"{error}; {advice}", {"Retry-After": retry_after(wait_s)}, **members)


def _allowed(request: Request) -> str:
    """All methods of a path; the router names only those of its first route."""
    found = [one.methods for one in request.app.routes if one.matches(request.scope)[0] is not Match.NONE]
    methods = set().union(*found)
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


async def _on_http(request: Request, error: HTTPException) -> Response:
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return problem(error.status_code, str(error.detail), headers)


async def _on_validation(_: Request, error: RequestValidationError) -> Response:
    """422 for JSON that is not a job, 400 for a body that is not JSON."""
    errors = error.errors()
    if any(one["type"] == "json_invalid" for one in errors):
        return problem(400, str(errors[0].get("msg", "the body is not valid JSON")))
    shown = [{"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]} for one in errors]
    where = ".".join(str(part) for part in shown[0]["loc"])
    return problem(422, f"{where}: {shown[0]['msg']}", errors=shown)


async def _on_disconnect(_: Request, __: ClientDisconnect) -> Response:
    return problem(400, "the client disconnected before its request was complete")


async def _on_own(_: Request, error: OverloadDemoError) -> Response:
    return from_error(error)


HANDLERS: dict[int | type[Exception], Any] = {
    HTTPException: _on_http,
    RequestValidationError: _on_validation,
    OverloadDemoError: _on_own,
    ClientDisconnect: _on_disconnect,
}
