"""What a worker counts, and its own door for Prometheus."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.metric_set import MetricSet
from overload_demo.process import PARENT_ONLY
from overload_demo.worker.lease_metrics import LeaseMetrics

log = logging.getLogger("overload_demo.worker")

HANDLER_S = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ATTEMPTS = ("1", "2", "3 or more")


class WorkerMetrics:
    """The numbers of one worker. What the doing of jobs counts is here, the rest with the ``leases``."""

    def __init__(self) -> None:
        self.sheet = MetricSet()
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
