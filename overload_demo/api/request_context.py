"""What the API's log tells of requests, and the id by which a client, its answer and a log line find each other.

A request's id is its ``X-Request-ID``, or one we make where one is needed: every error carries it in its answer and in
its log line. A 202 does not carry it, since that would cost each accepted job, which has an id of its own; but for a
client that sends one, a log line tells both ids.
"""

import logging
import re
import secrets
from contextvars import ContextVar

from starlette.types import Scope

from overload_demo.logs import LogThrottle

HEADER = "X-Request-ID"
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")  # what may stand in a log line and in a header as it came
_ID = "overload_demo.request_id"
_current: ContextVar[Scope] = ContextVar("request")

log = logging.getLogger("overload_demo.api")
_throttle = LogThrottle(log, "requests")


def begin(scope: Scope) -> None:
    """Whatever is done or logged for this request from now on finds its id."""
    _current.set(scope)


def request_id() -> str:
    """The id of the present request; '' outside of any."""
    scope = _current.get(None)
    if scope is None:
        return ""
    if _ID not in scope:
        scope[_ID] = _given(scope) or secrets.token_hex(8)
    told: str = scope[_ID]
    return told


def _given(scope: Scope) -> str:
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    return given[0].decode() if len(given) == 1 and _SANE.fullmatch(given[0]) else ""


def with_request_id(record: logging.LogRecord) -> bool:
    """Note on a log record which request it is about, if any: for the log's handler."""
    if name := request_id():
        record.request_id = name
    return True


def accepted(job_id: str) -> None:
    """A job was committed: a log line for a client that has sent an id, while there are few."""
    scope = _current.get(None)
    if scope is not None and _given(scope) and _throttle.admit():
        log.info("%s accepted", job_id, extra={"job_id": job_id})


def refused(status: int, reason: str, job_id: str | None) -> None:
    """A request was answered with an error of ours: a log line while there are few."""
    if _throttle.admit(failed=True):
        log.warning("answered %d: %s", status, reason, extra={"job_id": job_id} if job_id else None)
