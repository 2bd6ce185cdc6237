"""What a worker counts, and its own ``/metrics`` for Prometheus."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.http_server import HostRule, usable_accept
from overload_demo.metric_set import MetricSet
from overload_demo.process import PARENT_ONLY
from overload_demo.queue.consumer import LeaseEnd, Settlement

log = logging.getLogger("overload_demo.worker")

HANDLER_S = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ATTEMPTS = ("1", "2", "3 or more")
CALLS = ("lease", "settle", "settle_and_lease", "extend")
CALL_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_JOBS = (0, 1, 2, 4, 8, 16, 32, 64, 128)


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
