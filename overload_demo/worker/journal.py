"""What a worker reports: log lines about jobs, the effect log that a run is reconciled with, and ``/metrics``."""

import logging
import os
import sysconfig
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from overload_demo.config import Settings
from overload_demo.console import LogThrottle, traceback_of
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.http_server import HostRule, usable_accept
from overload_demo.metric_set import MetricSet
from overload_demo.process import PARENT_ONLY
from overload_demo.queue.consumer import LeasedJob, LeaseEnd, Settlement, about

log = logging.getLogger("overload_demo.worker")

MAX_ERROR_LENGTH = 1_000
TRACEBACK_EVERY_S = 60.0
MAX_DISTINCT_ERRORS = 100
HANDLER_S = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ATTEMPTS = ("1", "2", "3 or more")
CALLS = ("lease", "settle", "settle_and_lease", "extend")
CALL_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_JOBS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")


def describe(error: BaseException) -> str:
    """Return an error's type and message as storable text; its type and place if it has no message.

    Lone surrogates, which UTF-8 cannot encode, become question marks.
    """
    try:
        name, text = type(error).__name__, str(error)
        if not text.strip():
            text = f"no message, raised at {_place(error)}"
        return f"{name}: {text}"[:MAX_ERROR_LENGTH].encode("utf-8", "replace").decode()
    except BaseException:  # name and text of a handler's own class may fail as well
        return "an error whose name or text cannot be read"


def _place(error: BaseException) -> str:
    """File, line and function that raised an error: the last ones outside the standard library, if there are any."""
    try:
        frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        own = [one for one in frames if not one[0].co_filename.startswith((_STANDARD_LIBRARY, "<frozen"))]
        code, line = (own or frames)[-1]
        return f"{Path(code.co_filename).name}:{line} in {code.co_name}"
    except BaseException:  # no traceback, or a handler's own class fails
        return "an unknown place"


class FailureLog:
    """Tracebacks of failing handlers: each distinct error (type and place) once a minute, at most 100 a minute."""

    def __init__(self) -> None:
        self._logged_at: dict[tuple[int, str], float] = {}  # oldest first

    def write(self, job: LeasedJob, error: BaseException) -> None:
        """Log the traceback, with causes and the members of a group, unless the same error was logged lately."""
        place, now = _place(error), time.monotonic()
        what = id(type(error)), place
        while self._logged_at and now - next(iter(self._logged_at.values())) >= TRACEBACK_EVERY_S:
            del self._logged_at[next(iter(self._logged_at))]
        if what not in self._logged_at and len(self._logged_at) < MAX_DISTINCT_ERRORS:
            self._logged_at[what] = now
            message = "the handler failed at %s; the next traceback of this error is logged in %g s at the earliest"
            values = place, TRACEBACK_EVERY_S
            record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, values, None, extra=about(job))
            record.exc_text = traceback_of(error)  # safe here: formatting it later could raise
            log.handle(record)


class OutcomeLog:
    """A log line for each job while there are few, and the counts ``done`` and ``failed``."""

    def __init__(self) -> None:
        self.done = self.failed = 0
        self._throttle = LogThrottle(log, "jobs")
        self.flush = self._throttle.flush

    def write(self, job: LeasedJob, end: LeaseEnd, text: str, busy_s: float) -> None:
        """Log the end of a job, now or in the next summary."""
        is_done = end is LeaseEnd.DONE
        self.done += is_done
        self.failed += not is_done
        if not self._throttle.admit(failed=not is_done):
            return
        if is_done:
            log.info("%s done in %.3f s", job.job_id, busy_s, extra=about(job))
        else:
            log.warning("%s %s (attempt %d): %s", job.job_id, end.value, job.attempt, text[:200], extra=about(job))


class EffectLog:
    """An append-only file of starts and effects, one ``write`` each, so that it is complete after a ``kill -9``."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"WORKER_EFFECT_LOG: cannot write {path}: {error.strerror}") from None

    def write(self, event: str, job: LeasedJob) -> None:
        """Append ``start`` or ``effect`` with the job's id, its attempt and the time (CLOCK_MONOTONIC, seconds)."""
        try:
            os.write(self._fd, f"{event} {job.job_id} {job.attempt} {time.monotonic():.6f}\n".encode())
        except OSError as error:
            raise OverloadDemoError(f"WORKER_EFFECT_LOG: cannot write: {error.strerror}") from None


class WorkerMetrics:
    """The metrics of one worker.

    The thread that runs the jobs counts attempts and ``handler_seconds``, the lease renewer's thread the rest.
    """

    def __init__(self) -> None:
        with MetricSet() as own:
            help = "Jobs settled, by outcome; released: returned unstarted."
            ends = Counter("overload_worker_jobs_total", help, ["outcome"], registry=own)
            self._ends = {end: ends.labels(end) for end in LeaseEnd}
            help = "Jobs leased and not settled by this worker."
            self.in_flight = Gauge("overload_worker_in_flight", help, registry=own)
            help = "Jobs leased in one call."
            self._lease_jobs = Histogram("overload_worker_lease_jobs", help, registry=own, buckets=BATCH_JOBS)
            help = "Jobs settled in one call."
            self._settle_jobs = Histogram("overload_worker_settle_jobs", help, registry=own, buckets=BATCH_JOBS)
            help = "Duration of a store call, by call."
            calls = Histogram("overload_worker_store_seconds", help, ["call"], registry=own, buckets=CALL_S)
            self._calls = {call: calls.labels(call) for call in CALLS}
            help = "Results that came after their lease was lost."
            self._fenced = Counter("overload_worker_fenced_total", help, registry=own)
            self.store_error = own.store_errors()
            attempts = Counter("overload_worker_attempts_total", "Jobs started, by attempt.", ["attempt"], registry=own)
            self._attempts = [attempts.labels(attempt) for attempt in ATTEMPTS]
            help = "Duration of a job."
            self.handler_seconds = Histogram("overload_worker_handler_seconds", help, registry=own, buckets=HANDLER_S)
        self.metrics = own

    def started(self, attempt: int) -> None:
        """Count the start of a job; ``attempt`` counts from 1."""
        self._attempts[min(attempt, len(self._attempts)) - 1].inc()

    @contextmanager
    def timed(self, call: str) -> Iterator[None]:
        """Measure the duration of one of ``CALLS``, also if it fails."""
        since = time.perf_counter()
        try:
            yield
        finally:
            self._calls[call].observe(time.perf_counter() - since)

    def leased(self, jobs: int) -> None:
        """Count one lease call."""
        self._lease_jobs.observe(jobs)
        self.in_flight.inc(jobs)

    def settled(self, settlements: Sequence[Settlement], fenced: int) -> None:
        """Count one settle call; ``fenced`` of its jobs had lost their lease."""
        self._settle_jobs.observe(len(settlements))
        self.in_flight.dec(len(settlements))
        self._fenced.inc(fenced)
        for one in settlements:
            self._ends[one.end].inc()


def _request_class(rule: HostRule) -> type[WSGIRequestHandler]:
    class Request(WSGIRequestHandler):
        """One scrape: refuses a Host header as the API does, and hides what the library cannot parse of Accept."""

        def log_message(self, *_: Any) -> None:
            """Write no access log."""

        def parse_request(self) -> bool:
            """Check the Host header, which HTTP/1.0 need not have."""
            if not super().parse_request():
                return False
            hosts = ",".join(self.headers.get_all("Host", [])).encode()
            refusal = hosts and rule.refusal(hosts, self.connection.getsockname()[0])
            if refusal:
                self.send_error(400, str(refusal))
            return not refusal

        def get_environ(self) -> dict[str, Any]:
            """Pass on the usable entries of Accept."""
            environ: dict[str, Any] = super().get_environ()
            return environ | {"HTTP_ACCEPT": usable_accept(environ.get("HTTP_ACCEPT", ""))}

    return Request


@contextmanager
def serving(metrics: WorkerMetrics, settings: Settings) -> Iterator[None]:
    """Answer ``GET /metrics`` on WORKER_METRICS_PORT during the block, if it is set.

    Raises :class:`ConfigurationError` if the port is taken, for example by another worker.
    """
    if settings.worker_metrics_port is None:
        yield
        return
    host, port = settings.worker_metrics_host, settings.worker_metrics_port
    try:
        server, thread = start_http_server(port, host, metrics.metrics)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"WORKER_METRICS_PORT: cannot listen on {host}:{port}: {reason}") from None
    server.RequestHandlerClass = _request_class(HostRule(settings.allowed_hosts))
    PARENT_ONLY.add(server.fileno())
    log.info("metrics at http://%s:%d/metrics", host, server.server_port)
    try:
        yield
    finally:
        PARENT_ONLY.discard(server.fileno())
        server.shutdown()
        server.server_close()
        thread.join()
