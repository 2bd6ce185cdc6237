"""What a worker's lease keeper counts. All of it from its own thread."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from overload_demo.metric_set import MetricSet
from overload_demo.queue.consumer import LeaseEnd, Settlement

CALLS = ("lease", "settle", "settle_and_lease", "extend")
CALL_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_JOBS = (0, 1, 2, 4, 8, 16, 32, 64, 128)


class LeaseMetrics:
    """Leases, settlements, and how the store took them."""

    def __init__(self, sheet: MetricSet) -> None:
        jobs = sheet.counters(
            "overload_worker_jobs_total",
            "Jobs settled, by outcome; released: given back unstarted.",
            "outcome",
            [*LeaseEnd],
        )
        self._jobs = {LeaseEnd(outcome): counter for outcome, counter in jobs.items()}
        self._in_flight = sheet.gauge("overload_worker_in_flight", "Jobs leased and not settled by this worker.")
        self._lease_jobs = sheet.histogram("overload_worker_lease_jobs", "Jobs that a lease call brought.", BATCH_JOBS)
        self._settle_jobs = sheet.histogram("overload_worker_settle_jobs", "Jobs settled in one call.", BATCH_JOBS)
        self._calls = sheet.histograms(
            "overload_worker_store_seconds", "How long the store takes, by call.", "call", CALLS, CALL_S
        )
        self._fenced = sheet.counter("overload_worker_fenced_total", "Results that came after their lease was lost.")
        self.store_error = sheet.store_errors()

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
            self._jobs[one.end].add()

    def lost(self) -> None:
        """The lease of an unstarted job has gone to another worker."""
        self._in_flight.add(-1)
