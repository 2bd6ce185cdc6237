"""The errors and the p99 that a live view derives from an API's metrics."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from overload_demo.live.sources import ApiCounts


class Api:
    """Metrics of the names and kinds that the API has, made by Prometheus' own client."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.answers = Counter("overload_http_requests", "answers", ["status"], registry=self._registry)
        self.acceptance = Histogram(
            "overload_acceptance_seconds", "acceptance", buckets=(0.01, 0.1, 1.0), registry=self._registry
        )

    def counts(self) -> ApiCounts:
        return ApiCounts.read(generate_latest(self._registry).decode())


def test_errors_are_refusals_and_failures_of_the_server_only() -> None:
    api = Api()
    for status, count in {"202": 50, "404": 7, "422": 5, "429": 3, "503": 2, "other": 9}.items():
        api.answers.labels(status).inc(count)

    assert api.counts().errors == 5


def test_the_p99_is_of_the_time_since_the_last_look() -> None:
    api = Api()
    for _ in range(1000):
        api.acceptance.observe(0.5)
    before = api.counts()
    for _ in range(100):
        api.acceptance.observe(0.05)

    assert api.counts().p99_s(before) == pytest.approx(0.01 + 0.99 * 0.09, abs=1e-4)


def test_beyond_the_last_bound_the_p99_is_that_bound() -> None:
    api = Api()
    before = api.counts()
    api.acceptance.observe(60.0)

    assert api.counts().p99_s(before) == 1.0


def test_without_an_acceptance_there_is_no_p99() -> None:
    api = Api()

    assert api.counts().p99_s(api.counts()) is None


def test_a_restarted_api_has_no_p99_yet() -> None:
    before, after = Api(), Api()
    for _ in range(9):
        before.acceptance.observe(0.05)
    after.acceptance.observe(0.005)

    assert after.counts().p99_s(before.counts()) is None
