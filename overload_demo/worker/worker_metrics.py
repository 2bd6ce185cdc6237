"""What a worker counts, and its own door for Prometheus."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.metrics.families import Sheet
from overload_demo.metrics.store_errors import store_errors
from overload_demo.process import PARENT_ONLY
from overload_demo.queue.consumer import Settlement, Verdict

log = logging.getLogger("overload_demo.worker")

HANDLER_S = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ATTEMPTS = ("1", "2", "3 or more")
CALLS = ("lease", "settle", "settle_and_lease", "extend")
CALL_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_JOBS = (0, 1, 2, 4, 8, 16, 32, 64, 128)


class LeaseMetrics:
    """Leases, settlements, and how the store took them."""

    def __init__(self, sheet: Sheet) -> None:
        jobs = sheet.counters(
            "overload_worker_jobs_total",
            "Jobs settled, by outcome; released: given back unstarted.",
            "outcome",
            [*Verdict],
        )
        self._jobs = {Verdict(outcome): counter for outcome, counter in jobs.items()}
        self._in_flight = sheet.gauge("overload_worker_in_flight", "Jobs leased and not settled by this worker.")
        self._lease_jobs = sheet.histogram("overload_worker_lease_jobs", "Jobs that a lease call brought.", BATCH_JOBS)
        self._settle_jobs = sheet.histogram("overload_worker_settle_jobs", "Jobs settled in one call.", BATCH_JOBS)
        self._calls = sheet.histograms(
            "overload_worker_store_seconds", "How long the store takes, by call.", "call", CALLS, CALL_S
        )
        self._fenced = sheet.counter("overload_worker_fenced_total", "Results that came after their lease was lost.")
        self.store_error = store_errors(sheet)

    @contextmanager
    def timed(self, call: str) -> Iterator[None]:
        """Take the time of one call, whether it ends well or not."""
        since = time.perf_counter()
        try:
            yield
        finally:
            self._calls[call].observe(time.perf_counter() - since)

    def leased(self, jobs: int) -> None:
        """A lease call has brought so many jobs."""
        self._lease_jobs.observe(jobs)
        self._in_flight.add(jobs)

    def settled(self, settlements: Sequence[Settlement], fenced: int) -> None:
        """The store has settled these, but for so many that it had given to others."""
        self._settle_jobs.observe(len(settlements))
        self._in_flight.add(-len(settlements))
        self._fenced.add(fenced)
        for one in settlements:
            self._jobs[one.verdict].add()

    def lost(self) -> None:
        """The lease of an unstarted job has gone to another worker."""
        self._in_flight.add(-1)


class WorkerMetrics:
    """The numbers of one worker. What the doing of jobs counts is here, the rest with the ``leases``."""

    def __init__(self) -> None:
        self.sheet = Sheet()
        self.leases = LeaseMetrics(self.sheet)
        attempts = self.sheet.counters(
            "overload_worker_attempts_total", "Jobs started, by how often they have been.", "attempt", ATTEMPTS
        )
        self._attempts = list(attempts.values())
        self._handler = self.sheet.histogram("overload_worker_handler_seconds", "How long a job takes.", HANDLER_S)
        self.sheet.begin()

    def started(self, attempt: int) -> None:
        """A job begins, for the ``attempt``-th time."""
        self._attempts[min(attempt, len(self._attempts)) - 1].add()

    def ended(self, busy_s: float) -> None:
        """It has ended, well or not, after so many seconds."""
        self._handler.observe(busy_s)


@contextmanager
def serving(metrics: WorkerMetrics, settings: Settings) -> Iterator[None]:
    """Answer ``GET /metrics`` at WORKER_METRICS_PORT for the length of the block, if it is set.

    Raises :class:`ConfigurationError` when the port cannot be had, as when another worker has it.
    """
    if settings.worker_metrics_port is None:
        yield
        return
    host, port = settings.worker_metrics_host, settings.worker_metrics_port
    registry = CollectorRegistry()
    registry.register(metrics.sheet)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"WORKER_METRICS_PORT: cannot listen on {host}:{port}: {reason}") from None
    PARENT_ONLY.add(server.fileno())
    log.info("metrics at http://%s:%d/metrics", host, server.server_port)
    try:
        yield
    finally:
        PARENT_ONLY.discard(server.fileno())
        server.shutdown()
        server.server_close()
        thread.join()
