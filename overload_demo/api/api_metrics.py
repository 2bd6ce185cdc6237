"""What the API counts, and what ``GET /metrics`` tells: its own numbers over all processes, and the queue's."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from overload_demo.headers import usable_accept
from overload_demo.metric_set import MetricSet
from overload_demo.queue.results import QueueStats

STATUSES = ["200", "202", "400", "401", "404", "405", "409", "413", "414", "415", "422", "429", "431", "500", "503"]
OTHER = "other"
ACCEPTED = b"202"
ACCEPTANCE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COMMIT_S = (0.00025, *ACCEPTANCE_S[:-1])
BATCH_JOBS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# Queue numbers: (name, field of QueueStats, what it says). Counts since the store was new.
QUEUE_GAUGES = (
    ("overload_queue_depth", "queue_length", "Jobs waiting, without those cancelled."),
    ("overload_queue_oldest_age_seconds", "oldest_age_s", "Age of the job at the head."),
    ("overload_queue_estimated_wait_seconds", "estimated_wait_s", "Estimated wait of a job enqueued now."),
    ("overload_queue_paused", "paused", "1 while nothing is handed to workers."),
    ("overload_jobs_in_flight", "in_flight", "Jobs leased and not settled, all workers together."),
    ("overload_jobs_drained_per_second", "drain_rate_per_s", "Jobs settled a second of late, all workers together."),
    ("overload_workers_alive", "workers_alive", "Workers that gave a sign of life lately."),
    ("overload_dead_letters", "dead_letters", "Entries of the dead list."),
)
QUEUE_COUNTERS = (
    ("overload_jobs_accepted_total", "accepted", "Jobs committed."),
    ("overload_jobs_done_total", "done", "Jobs that ended with a result."),
    ("overload_jobs_failed_total", "failed", "Jobs that ended with an error, dead and expired ones included."),
    ("overload_jobs_cancelled_total", "cancelled", "Jobs cancelled while they waited."),
    ("overload_jobs_expired_total", "expired", "Jobs not started by their deadline."),
    ("overload_jobs_dead_total", "dead", "Jobs put on the dead list."),
    ("overload_jobs_interrupted_total", "interrupted", "Attempts that ended without an outcome."),
)


class ApiMetrics:
    """What one API process counts, in its row of the shared memory ``fd``; without one, for itself alone."""

    def __init__(self, fd: int = -1, row: int = 0) -> None:
        sheet = self._sheet = MetricSet(fd, row)
        requests = sheet.counters(
            "overload_http_requests_total", "Answers sent, by status.", "status", [*STATUSES, OTHER]
        )
        self._requests = {status.encode(): counter for status, counter in requests.items()}
        self._accepted, self._other = requests[ACCEPTED.decode()], requests[OTHER]
        self._acceptance = sheet.histogram(
            "overload_acceptance_seconds", "From the head of a request read to its 202 written.", ACCEPTANCE_S
        )
        self._batch = sheet.histogram("overload_commit_batch_jobs", "Jobs in one call that enqueues.", BATCH_JOBS)
        self._commit = sheet.histogram(
            "overload_commit_seconds", "How long a call that enqueues takes, repeated attempts included.", COMMIT_S
        )
        self.connections = sheet.gauge("overload_live_connections", "Connections let in.")
        self.paused = sheet.gauge("overload_accepting_paused", "API processes that let nobody in: they are full.")
        self.pauses = sheet.counter("overload_accepting_pauses_total", "How often a process stopped letting in.")
        self.store_error = sheet.store_errors()
        self._unfolded: list[float] = []
        sheet.begin()

    def answered(self, status: bytes, seconds: float) -> None:
        """An answer was written, so long after its request's head was read. One that accepts waits for a fold."""
        if status == ACCEPTED:
            self._unfolded.append(seconds)
        else:
            self._requests.get(status, self._other).add()

    def fold(self) -> None:
        """Count what was accepted since the last time: many at once cost a third of what they cost one by one."""
        times, self._unfolded = self._unfolded, []
        if times:
            self._accepted.add(len(times))
            self._acceptance.observe_all(times)

    def committed(self, jobs: int, seconds: float) -> None:
        """A call that was to enqueue so many jobs has ended, well or not."""
        self._batch.observe(jobs)
        self._commit.observe(seconds)

    def exposition(self, stats: QueueStats | None, accept: str) -> tuple[bytes, str]:
        """All numbers in the format that an ``Accept`` header asks for, and its media type; None: the store is gone."""
        self.fold()
        encode, media_type = choose_encoder(usable_accept(accept))
        return encode(_Told([*self._sheet.collect(), *_told_of_queue(stats)])), media_type


def _told_of_queue(stats: QueueStats | None) -> Iterable[Metric]:
    """The queue's numbers; while nobody knows them they are left out, since 0 would be a lie."""
    yield GaugeMetricFamily("overload_store_up", "1 if the store has answered this scrape.", float(stats is not None))
    if stats is not None:
        for name, field, says in QUEUE_GAUGES:
            yield GaugeMetricFamily(name, says, float(getattr(stats, field)))
        for name, field, says in QUEUE_COUNTERS:
            yield CounterMetricFamily(name, says, float(getattr(stats, field)))


class _Told:
    """What the library takes for a collector."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        """The library's hook."""
        return self._metrics
