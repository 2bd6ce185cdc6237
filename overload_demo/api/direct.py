"""The direct path of plain requests: the front door answers them without a task, an ASGI scope or a response object.

``POST /jobs`` with a plainly valid body and ``GET /jobs/{job_id}``, as nearly all requests are: the bytes of the body
become a job, the group commit calls back, and the callback writes a response built from bytes. FastAPI's routes
(``intake.py``, ``routes.py``) answer everything else, with their OpenAPI and their errors; a test compares both paths.

Reading tour 6 of 13; next: overload_demo/queue/lua/lease.lua. Look for the call after which a 202 is durable.
Question: which requests take FastAPI's way, and why?
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from overload_demo.api.access import ApiKeys
from overload_demo.api.models import accepted_body, job_body
from overload_demo.api.problems import NO_SUCH_JOB, from_error, problem, retry_after
from overload_demo.api.request_context import begin, log_accepted
from overload_demo.errors import OverloadDemoError
from overload_demo.headers import HostRule
from overload_demo.jobs import JOB_ID, JobRequest, is_plainly_strict, new_job_id
from overload_demo.queue.producer import Enqueued, NewJob, Producer
from overload_demo.queue.results import JobStatus, Results

Headers = Sequence[tuple[bytes, bytes]]
Write = Callable[[bytes, bytes], object]

JOBS = b"/jobs"
POLL = JOBS + b"/"
# Headers whose requests FastAPI's way answers: what they ask for is rare.
NOT_DIRECT = frozenset({b"idempotency-key", b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"})
_validate_json = JobRequest.__pydantic_validator__.validate_json


class DirectRequest:
    """A plain request; it has those attributes of uvicorn's request cycle that a connection reads."""

    __slots__ = (
        *("job_id", "owner", "headers", "is_traced", "body"),
        *("keep_alive", "disconnected", "response_started", "response_complete"),
    )

    def __init__(self, job_id: str, owner: str, headers: Headers, *, is_traced: bool, keep_alive: bool) -> None:
        self.job_id, self.owner, self.headers, self.is_traced = job_id, owner, headers, is_traced
        self.body = b""
        self.keep_alive = keep_alive
        self.disconnected = self.response_started = self.response_complete = False

    @property
    def message_event(self) -> "DirectRequest":
        """No task waits for this request: its event has no effect."""
        return self

    def set(self) -> None:
        """Do nothing."""


class DirectRequests:
    """Recognizes and answers plain requests; ``state`` is that of the running app."""

    def __init__(self, state: Any) -> None:
        self._producer: Producer = state.producer
        self._results: Results = state.results
        self._keys: ApiKeys = state.keys
        self._hosts: HostRule = state.hosts
        self._most_bytes: int = state.settings.overload_max_body_bytes

    def recognize(
        self, method: bytes, url: bytes, headers: Headers, server: str, *, keep_alive: bool
    ) -> DirectRequest | None:
        """Return the :class:`DirectRequest` of an HTTP/1.1 head; None if the app must answer it.

        The body of a direct request has a declared length within the limit, or there is none.
        """
        fields = dict(headers)
        if len(fields) < len(headers) or not NOT_DIRECT.isdisjoint(fields):
            return None
        job_id = ""
        if method == b"GET":
            job_id = _polled(url)
            if not job_id or b"content-length" in fields:
                return None
        elif method != b"POST" or url != JOBS or not self._has_plain_body(fields):
            return None
        owner = self._keys.owner(headers)
        if owner is None or self._hosts.refusal(fields[b"host"], server):
            return None
        return DirectRequest(job_id, owner, headers, is_traced=b"x-request-id" in fields, keep_alive=keep_alive)

    def _has_plain_body(self, fields: Mapping[bytes, bytes]) -> bool:
        length = fields.get(b"content-length")
        is_json = fields.get(b"content-type") == b"application/json"
        return is_json and length is not None and int(length) <= self._most_bytes

    def serve(self, request: DirectRequest, write: Write) -> bool:
        """Answer a complete request: ``write`` is called once, later, with status line and the rest of the response.

        Returns False, without an effect, if the body is not plainly valid: the app must answer the request.
        """
        if request.job_id:
            self._results.hand_in(request.job_id, partial(_found, request, write))
            return True
        job = _plainly_valid(request.body)
        if job is None:
            return False
        new = NewJob(new_job_id(), request.body.decode(), owner=request.owner, expires_in_s=job.expires_in_s)
        self._producer.hand_in(new, partial(_committed, request, write, new.job_id))
        return True


def _polled(url: bytes) -> str:
    """The id in the URL of a poll; '' for another URL."""
    if not url.startswith(POLL):
        return ""
    job_id = url[len(POLL) :].decode("ascii", "replace")
    return job_id if JOB_ID.fullmatch(job_id) else ""


def _plainly_valid(body: bytes) -> JobRequest | None:
    if not is_plainly_strict(body):
        return None
    try:
        job: JobRequest = _validate_json(body)
    except ValidationError:
        return None  # FastAPI reports the error
    return job


def _committed(request: DirectRequest, write: Write, job_id: str, reply: Enqueued | OverloadDemoError) -> None:
    """Answer a submitted job: the store has committed it, or has failed."""
    if isinstance(reply, OverloadDemoError):
        _write_problem(request, write, partial(from_error, reply, job_id))
        return
    if request.is_traced:
        copy_context().run(_log_accepted, request, reply.job_id)
    body = accepted_body(reply.job_id)
    about = f"location: /jobs/{reply.job_id}\r\nretry-after: {retry_after(reply.estimated_wait_s)}\r\n"
    write(STATUS_LINE[202], _json_response(body, about))


def _found(request: DirectRequest, write: Write, status: JobStatus | OverloadDemoError | None) -> None:
    """Answer a poll."""
    if isinstance(status, OverloadDemoError):
        _write_problem(request, write, partial(from_error, status))
    elif status is None or (request.owner and status.owner != request.owner):
        _write_problem(request, write, partial(problem, 404, NO_SUCH_JOB))
    else:
        body, wait_s = job_body(request.job_id, status)
        about = "" if wait_s is None else f"retry-after: {retry_after(wait_s)}\r\n"
        write(STATUS_LINE[200], _json_response(body, about))


def _json_response(body: bytes, about: str) -> bytes:
    return f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{about}\r\n".encode() + body


def _log_accepted(request: DirectRequest, job_id: str) -> None:
    begin({"headers": request.headers})
    log_accepted(job_id)


def _write_problem(request: DirectRequest, write: Write, make: Callable[[], Response]) -> None:
    def in_context() -> Response:
        begin({"headers": request.headers})
        return make()

    response = copy_context().run(in_context)
    head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    write(STATUS_LINE[response.status_code], head + b"\r\n" + bytes(response.body))
