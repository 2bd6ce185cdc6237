"""What the API counts, and the content of its ``/metrics``: totals of all its processes, and the queue's statistics."""

from collections.abc import Collection, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from prometheus_client import Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from overload_demo.errors import StoreError
from overload_demo.http_server import usable_accept
from overload_demo.metric_set import Histogram, MetricSet
from overload_demo.queue.results import QueueStats

STATUSES = ["200", "202", "400", "401", "404", "405", "409", "413", "414", "415", "422", "429", "431", "500", "503"]
OTHER = "other"
ACCEPTED = b"202"
ACCEPTANCE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COMMIT_S = (0.00025, *ACCEPTANCE_S[:-1])
BATCH_JOBS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# (name, field of QueueStats, help); counters since the store was created.
QUEUE_GAUGES = (
    ("overload_queue_depth", "queue_length", "Jobs waiting, without cancelled ones."),
    ("overload_queue_oldest_age_seconds", "oldest_age_s", "Age of the job at the head."),
    ("overload_queue_estimated_wait_seconds", "estimated_wait_s", "Estimated wait of a job enqueued now."),
    ("overload_queue_paused", "paused", "1 while the queue is paused."),
    ("overload_jobs_in_flight", "in_flight", "Jobs leased and not settled, all workers together."),
    ("overload_jobs_drained_per_second", "drain_rate_per_s", "Jobs settled per second lately, all workers together."),
    ("overload_workers_alive", "workers_alive", "Workers with a recent heartbeat."),
    ("overload_dead_letters", "dead_letters", "Entries of the dead-letter list."),
)
QUEUE_COUNTERS = (
    ("overload_jobs_accepted_total", "accepted", "Jobs committed."),
    ("overload_jobs_done_total", "done", "Jobs that ended with a result."),
    ("overload_jobs_failed_total", "failed", "Jobs that ended with an error, dead and expired ones included."),
    ("overload_jobs_cancelled_total", "cancelled", "Jobs cancelled while they waited."),
    ("overload_jobs_expired_total", "expired", "Jobs not started by their deadline."),
    ("overload_jobs_dead_total", "dead", "Jobs put on the dead-letter list."),
    ("overload_jobs_interrupted_total", "interrupted", "Leases that ended without an outcome; the job runs again."),
)


class ApiMetrics:
    """The metrics of one API process, in its row of the shared memory ``fd``; without one, in memory of its own."""

    def __init__(self, fd: int = -1, row: int = 0) -> None:
        with MetricSet(fd, row) as own:
            requests = Counter("overload_http_requests_total", "Responses sent, by status.", ["status"], registry=own)
            self._requests = {status.encode(): requests.labels(status) for status in [*STATUSES, OTHER]}
            self._accepted, self._other = self._requests[ACCEPTED], self._requests[OTHER.encode()]
            help = "From the head of a request read to its 202 written."
            self._acceptance = Histogram("overload_acceptance_seconds", help, registry=own, buckets=ACCEPTANCE_S)
            help = "Jobs in one enqueue call."
            self._batch = Histogram("overload_commit_batch_jobs", help, registry=own, buckets=BATCH_JOBS)
            help = "Duration of an enqueue call, retries included."
            self._commit = Histogram("overload_commit_seconds", help, registry=own, buckets=COMMIT_S)
            help = "Connections accepted and not closed."
            self._connections = Gauge("overload_live_connections", help, registry=own)
            help = "API processes that accept no connection: at the cap."
            self.paused = Gauge("overload_accepting_paused", help, registry=own)
            help = "How often a process stopped accepting."
            self.pauses = Counter("overload_accepting_pauses_total", help, registry=own)
            self.store_error = own.store_errors()
        self._metrics = own
        self._buffered: list[float] = []
        self.live: Collection[object] = ()  # the connections accepted and not closed

    def answered(self, status: bytes, seconds: float) -> None:
        """Count a response, written ``seconds`` after its request's head was read; 202s are buffered until a flush."""
        if status == ACCEPTED:
            self._buffered.append(seconds)
        else:
            self._requests.get(status, self._other).inc()

    def flush(self) -> None:
        """Count live connections and the buffered 202s: many at once cost a third of what they cost one by one."""
        self._connections.set(len(self.live))
        times, self._buffered = self._buffered, []
        if times:
            self._accepted.inc(len(times))
            self._acceptance.observe_all(times)

    def committed(self, jobs: int, seconds: float) -> None:
        """Count an enqueue call, successful or not."""
        self._batch.observe(jobs)
        self._commit.observe(seconds)

    def exposition(self, shards: Sequence[QueueStats | StoreError | None], accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format of an Accept header, and its media type.

        ``shards`` are the numbers of the only queue, or of each shard; anything else means that it did not answer.
        """
        self.flush()
        encode, media_type = choose_encoder(usable_accept(accept))
        collector: Any = SimpleNamespace(collect=lambda: [*self._metrics.collect(), *_queue_metrics(shards)])
        return encode(collector), media_type


def _queue_metrics(shards: Sequence[QueueStats | StoreError | None]) -> Iterable[Metric]:
    """The queue's metrics, with a label if there are several; of one that did not answer they are left out."""
    labels = ["shard"] if len(shards) > 1 else []

    def family(kind: Any, name: str, help: str, numbers: dict[int, float]) -> Any:
        made = kind(name, help, labels=labels)
        for shard, number in numbers.items():
            made.add_metric([str(shard)] if labels else [], number)
        return made

    up = {shard: float(isinstance(one, QueueStats)) for shard, one in enumerate(shards)}
    yield family(GaugeMetricFamily, "overload_store_up", "1 if the store has answered this scrape.", up)
    answered = {shard: one for shard, one in enumerate(shards) if isinstance(one, QueueStats)}
    if answered:
        for kind, metrics in ((GaugeMetricFamily, QUEUE_GAUGES), (CounterMetricFamily, QUEUE_COUNTERS)):
            for name, field, help in metrics:
                numbers = {shard: float(getattr(one, field)) for shard, one in answered.items()}
                yield family(kind, name, help, numbers)
