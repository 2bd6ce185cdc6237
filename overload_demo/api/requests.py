"""What the API's log tells of requests, and the id by which a client, its answer and a log line find each other.

A request's id is its ``X-Request-ID``, or one we make where one is needed: every error carries it in its answer and in
its log line. A 202 does not, since making and sending it would cost each accepted job, which has an id of its own.
"""

import logging
import re
import secrets
from contextvars import ContextVar

from starlette.types import Scope

from overload_demo.logs import Journal

HEADER = "X-Request-ID"
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")  # what may stand in a log line and in a header as it came
_ID = "overload_demo.request_id"
_current: ContextVar[Scope] = ContextVar("request")

begin = _current.set  # called by what meets a request first; whatever is done or logged for it then finds its id
log = logging.getLogger("overload_demo.api")
_journal = Journal(log, "requests")


def request_id() -> str:
    """The id of the present request; '' outside of any."""
    scope = _current.get(None)
    if scope is None:
        return ""
    if _ID not in scope:
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        is_sane = len(given) == 1 and _SANE.fullmatch(given[0])
        scope[_ID] = given[0].decode() if is_sane else secrets.token_hex(8)
    told: str = scope[_ID]
    return told


def with_request_id(record: logging.LogRecord) -> bool:
    """Note on a log record which request it is about, if any: for the log's handler."""
    if name := request_id():
        record.request_id = name
    return True


def accepted(job_id: str) -> None:
    """A job was committed: a log line while there are few."""
    if _journal.has_room():
        log.info("%s accepted", job_id, extra={"job_id": job_id})


def refused(status: int, reason: str, job_id: str | None) -> None:
    """A request was answered with an error of ours: a log line while there are few."""
    if _journal.has_room(failed=True):
        log.warning("answered %d: %s", status, reason, extra={"job_id": job_id} if job_id else None)
