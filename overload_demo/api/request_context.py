"""The id of a request, and the log lines about requests.

The id is the request's ``X-Request-ID``, or one that is generated when an error or a log line needs it. A 202 does not
carry it, to stay cheap: for a client that sends an id, a log line names it with the job's.
"""

import logging
import re
import secrets
from contextvars import ContextVar

from starlette.types import Scope

from overload_demo.console import LogThrottle

HEADER = "X-Request-ID"
_SAFE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")  # may stand in a log line and in a header unchanged
_ID = "overload_demo.request_id"
_current: ContextVar[Scope] = ContextVar("request")

log = logging.getLogger("overload_demo.api")
_throttle = LogThrottle(log, "requests")


def begin(scope: Scope) -> None:
    """Bind the request to the logging context."""
    _current.set(scope)


def request_id() -> str:
    """Return the id of the current request; '' outside of one."""
    scope = _current.get(None)
    if scope is None:
        return ""
    if _ID not in scope:
        scope[_ID] = _given(scope) or secrets.token_hex(8)
    return str(scope[_ID])


def _given(scope: Scope) -> str:
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    return given[0].decode() if len(given) == 1 and _SAFE.fullmatch(given[0]) else ""


def with_request_id(record: logging.LogRecord) -> bool:
    """Add the id of the current request to a log record; a filter for the log's handler."""
    if name := request_id():
        record.request_id = name
    return True


def log_accepted(job_id: str) -> None:
    """Log an accepted job if its client has sent an id, while there are few."""
    scope = _current.get(None)
    if scope is not None and _given(scope) and _throttle.admit():
        log.info("%s accepted", job_id, extra={"job_id": job_id})


def log_unavailable(reason: str, job_id: str | None) -> None:
    """Log a 503, while there are few."""
    if _throttle.admit(failed=True):
        log.warning("answered 503: %s", reason, extra={"job_id": job_id} if job_id else None)
