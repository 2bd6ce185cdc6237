"""The worker's own ``/metrics``: off by default, on loopback, and correct after failures, interruptions and kills."""

import re
from pathlib import Path

import httpx
import pytest

from overload_demo.config import load_settings
from overload_demo.errors import StoreError
from overload_demo.process import Child
from overload_demo.worker.journal import WorkerMetrics, serving
from tests.support.commands import run_module
from tests.support.running import api_process, child, environment, events, submit, wait_for, worker_process
from tests.support.scraping import Numbers, numbers_in
from tests.support.waiting import wait_until

FAILS_AT_TIMES = """
def handle(payload):
    if payload["value"] % 2:
        raise ValueError("odd")
    return {}
"""


def url_of(worker: Child) -> str:
    """The URL of a worker's metrics, from its log."""
    found: list[str] = []

    def is_logged() -> bool:
        found[:] = re.findall(r"metrics at (http://127\.0\.0\.1:\d+/metrics)", worker.log.read_text())
        return bool(found)

    wait_until("it logs its port", is_logged)
    return found[-1]


def scrape(url: str) -> Numbers:
    return numbers_in(httpx.get(url, trust_env=False).text)


def test_outcomes_attempts_times_and_batches_add_up(tmp_path: Path, own_queue: dict[str, object]) -> None:
    (tmp_path / "odd.py").write_text(FAILS_AT_TIMES)
    with api_process(tmp_path, **own_queue) as (_, client):
        ids = submit(client, 10)
        with worker_process(tmp_path, **own_queue, WORKER_METRICS_PORT=0, WORKER_HANDLER="odd:handle") as worker:
            url = url_of(worker)
            wait_for(client, ids[::2], "done")
            wait_for(client, ids[1::2], "failed")
            wait_until("all are settled", lambda: scrape(url)["overload_worker_in_flight"] == 0)

            numbers = scrape(url)

    assert numbers["overload_worker_jobs_total{done}"] == numbers["overload_worker_jobs_total{failed}"] == 5
    assert numbers["overload_worker_jobs_total{dead}"] == numbers["overload_worker_jobs_total{released}"] == 0
    assert numbers["overload_worker_attempts_total{1}"] == numbers["overload_worker_handler_seconds_count"] == 10
    assert numbers["overload_worker_lease_jobs_sum"] == numbers["overload_worker_settle_jobs_sum"] == 10
    calls = [
        numbers[f"overload_worker_store_seconds_count{{{call}}}"] for call in ("lease", "settle", "settle_and_lease")
    ]
    settled_alone, settled_with_a_lease = calls[1:]
    assert settled_alone + settled_with_a_lease == numbers["overload_worker_settle_jobs_count"] > 0
    errors = {name: count for name, count in numbers.items() if name.startswith("overload_store_errors_total")}
    assert len(errors) == len(StoreError.__subclasses__())
    assert not any(errors.values())  # that a new store does not know the scripts yet is none


@pytest.mark.exhaustive
def test_an_interrupted_job_is_counted_as_a_second_attempt(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with api_process(tmp_path, **own_queue) as (_, client):
        [job_id] = submit(client)
        slow = child("overload_demo.worker", folder=tmp_path, **own_queue, WORKER_PROCESSING_DELAY=60)
        slow.start()
        wait_until("it is running", lambda: events(tmp_path))
        slow.kill()
        slow.stop()

        with worker_process(tmp_path, **own_queue, WORKER_METRICS_PORT=0) as worker:
            wait_for(client, [job_id])
            numbers = scrape(url_of(worker))

        assert numbers["overload_worker_attempts_total{2}"] == 1
        assert numbers["overload_worker_attempts_total{1}"] == 0
        totals = numbers_in(client.get("/metrics").text)
        assert totals["overload_jobs_interrupted_total"] == totals["overload_jobs_done_total"] == 1


def test_a_running_job_is_in_flight(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with api_process(tmp_path, **own_queue) as (_, client):
        submit(client)
        with worker_process(
            tmp_path, **own_queue, WORKER_METRICS_PORT=0, WORKER_PROCESSING_DELAY=60, WORKER_GRACE_S=0.1
        ) as worker:
            wait_until("it is running", lambda: events(tmp_path))
            assert scrape(url_of(worker))["overload_worker_in_flight"] == 1


def test_an_unreachable_store_is_counted(tmp_path: Path) -> None:
    nowhere = {
        "UPSTASH_REDIS_REST_URL": "http://127.0.0.1:9",
        "UPSTASH_REDIS_REST_TOKEN": "a-token-of-the-test",
        "OVERLOAD_STORE_DEADLINE_S": 0.3,
    }
    with worker_process(tmp_path, WORKER_METRICS_PORT=0, **nowhere) as worker:
        url = url_of(worker)
        wait_until("it is counted", lambda: scrape(url)["overload_store_errors_total{unavailable}"] > 0)


def test_a_taken_metrics_port_is_a_one_line_error(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with worker_process(tmp_path, **own_queue, WORKER_METRICS_PORT=0) as worker:
        port = url_of(worker).split(":")[2].split("/")[0]
        outcome = run_module("overload_demo.worker", env=environment(tmp_path, WORKER_METRICS_PORT=port))

    assert outcome.returncode == 1
    [line] = outcome.stderr.splitlines()
    assert line == f"error: WORKER_METRICS_PORT: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_without_a_port_nothing_is_opened(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with worker_process(tmp_path, **own_queue) as worker:
        wait_until("it is up", lambda: "is up" in worker.log.read_text())
        assert "metrics at" not in worker.log.read_text()


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "rebound.example", 400),
        ("Host", "localhost:9100", 200),
        ("Host", "prometheus.example", 200),
        ("Accept", "application/openmetrics-text; version=abc", 200),
        ("Accept", "application/openmetrics-text; version=1.0.0", 200),
    ],
)
def test_metrics_refuse_a_foreign_host_and_answer_any_accept(
    header: str, value: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(worker_metrics_port=0, overload_allowed_hosts="prometheus.example")
    with caplog.at_level("INFO", "overload_demo.worker"), serving(WorkerMetrics(), settings):
        url = caplog.messages[-1].removeprefix("metrics at ")
        answer = httpx.get(url, headers={header: value}, trust_env=False)

    assert answer.status_code == status
    assert ("overload_worker_in_flight" in answer.text) == (status == 200)
