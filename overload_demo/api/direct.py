"""The direct path of plain requests: answered at their connection, without a task, an ASGI scope or a response object.

``POST /jobs`` with a plainly valid body and ``GET /jobs/{job_id}``, as nearly all requests are. The group commit calls
back, and the callback writes a response built from bytes. FastAPI's routes (``routes.py``) answer all other requests,
with their OpenAPI and their validation errors. A test compares both paths over a corpus.

Reading tour 6 of 13; next: overload_demo/queue/lua/lease.lua. Look for the call after which a 202 is durable.
Question: which requests take FastAPI's way, and why?
"""

from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from httptools import HttpRequestParser
from pydantic import ValidationError
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from overload_demo.api.access import ApiKeys
from overload_demo.api.contract import accepted_body, job_body
from overload_demo.api.problems import NO_SUCH_JOB, from_error, problem, retry_after
from overload_demo.api.request_context import begin, log_accepted
from overload_demo.errors import OverloadDemoError
from overload_demo.http_server import HostRule
from overload_demo.jobs import JOB_ID, JobRequest, is_plainly_strict, new_job_id
from overload_demo.queue.producer import Enqueued, NewJob, Producer
from overload_demo.queue.results import JobStatus, Results

Headers = Sequence[tuple[bytes, bytes]]

JOBS, POLL, JSON = b"/jobs", b"/jobs/", b"application/json"
NOT_DIRECT = frozenset({b"idempotency-key", b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"})
_validate_json = JobRequest.__pydantic_validator__.validate_json


class DirectRequest:
    """A plain request, with those attributes of uvicorn's request cycle that a connection uses.

    ``answer`` gets the request, the status line, and the response's own headers with its body.
    """

    __slots__ = (
        *("job_id", "owner", "fields", "body", "answer"),
        *("keep_alive", "disconnected", "response_started", "response_complete"),
    )

    def __init__(self, job_id: str, owner: str, fields: dict[bytes, bytes], *, keep_alive: bool) -> None:
        self.job_id, self.owner, self.fields, self.keep_alive = job_id, owner, fields, keep_alive
        self.body = b""
        self.disconnected = self.response_started = self.response_complete = False
        self.answer: Callable[[DirectRequest, bytes, bytes], object]

    @property
    def message_event(self) -> "DirectRequest":
        """The event of the request's task: there is none, and :meth:`set` has no effect."""
        return self

    def set(self) -> None:
        """Do nothing."""

    def committed(self, job: NewJob, reply: Enqueued | OverloadDemoError) -> None:
        """Answer a submitted job, which the store has committed, or which has failed."""
        if isinstance(reply, OverloadDemoError):
            self._write_problem(from_error, reply, job.job_id)  # the id that it had last: a shard may have changed it
            return
        if b"x-request-id" in self.fields:
            self._in_context(log_accepted, reply.job_id)
        about = f"location: /jobs/{reply.job_id}\r\nretry-after: {retry_after(reply.estimated_wait_s)}\r\n"
        self.answer(self, STATUS_LINE[202], with_head(JSON, accepted_body(reply.job_id), about.encode()))

    def found(self, status: JobStatus | OverloadDemoError | None) -> None:
        """Answer a poll."""
        if isinstance(status, OverloadDemoError):
            self._write_problem(from_error, status)
        elif status is None or (self.owner and status.owner != self.owner):
            self._write_problem(problem, 404, NO_SUCH_JOB)
        else:
            body, wait_s = job_body(self.job_id, status)
            about = b"" if wait_s is None else b"retry-after: %b\r\n" % retry_after(wait_s).encode()
            self.answer(self, STATUS_LINE[200], with_head(JSON, body, about))

    def _write_problem(self, make: Callable[..., Response], *about: Any) -> None:
        response = self._in_context(make, *about)
        head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
        self.answer(self, STATUS_LINE[response.status_code], b"%b\r\n%b" % (head, response.body))

    def _in_context(self, call: Callable[..., Any], *about: Any) -> Any:
        """Call a function with this request bound to the logging context."""
        context = copy_context()
        context.run(begin, {"headers": self.fields.items()})
        return context.run(call, *about)


class DirectRequests:
    """Recognizes plain requests and hands them to the queue; ``state`` is that of the running app."""

    def __init__(self, state: Any) -> None:
        self._producer: Producer = state.producer
        self._results: Results = state.results
        self._keys: ApiKeys = state.keys
        self._hosts: HostRule = state.hosts
        self._most_bytes: int = state.settings.overload_max_body_bytes
        self.connections_to_shards: int = state.connections_to_shards

    def recognize(self, parser: HttpRequestParser, url: bytes, headers: Headers, server: str) -> DirectRequest | None:
        """Return the direct request of a complete head, which is valid HTTP/1.1; None for any other one.

        The body of a direct POST has a declared length within the limit, and a poll has none.
        """
        fields, method, job_id = dict(headers), parser.get_method(), ""
        if len(fields) < len(headers) or not NOT_DIRECT.isdisjoint(fields) or parser.get_http_version() != "1.1":
            return None
        length = fields.get(b"content-length")
        if method == b"POST" and url == JOBS:
            if fields.get(b"content-type") != JSON or length is None or int(length) > self._most_bytes:
                return None
        elif method == b"GET" and url.startswith(POLL) and length is None:
            job_id = url[len(POLL) :].decode("ascii", "replace")
            if not JOB_ID.fullmatch(job_id):
                return None
        else:
            return None
        owner = self._keys.owner(headers)
        if owner is None or self._hosts.refusal(fields.get(b"host", b""), server):
            return None
        return DirectRequest(job_id, owner, fields, keep_alive=parser.should_keep_alive())

    def serve(self, request: DirectRequest) -> bool:
        """Answer a complete request, later; returns False, without an effect, if its body is not plainly valid."""
        if request.job_id:
            self._results.hand_in(request.job_id, request.found)
            return True
        if not is_plainly_strict(request.body):
            return False
        try:
            job: JobRequest = _validate_json(request.body)
        except ValidationError:
            return False  # FastAPI reports the error
        new = NewJob(new_job_id(), request.body.decode(), owner=request.owner, expires_in_s=job.expires_in_s)
        self._producer.hand_in(new, partial(request.committed, new))
        return True


def with_head(media_type: bytes, body: bytes, about: bytes = b"") -> bytes:
    """Return a body behind the headers that describe it, and ``about``, further header lines."""
    return b"content-type: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (media_type, len(body), about, body)
