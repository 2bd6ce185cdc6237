"""Log lines: JSON objects if configured, with the ids of request, job and attempt."""

import json
import logging
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from overload_demo.config import Settings
from overload_demo.console import JsonFormatter
from overload_demo.store.connect import Store
from tests.http.test_jobs_contract import assert_problem
from tests.support.commands import run_module
from tests.support.running import JOB, api_process, environment, serving_api, submit, wait_for, worker_process
from tests.support.stores import processes_of
from tests.support.waiting import wait_until

SECRET, KEY, PAYLOAD = "s3cret-token-of-the-store", "ada-key-0123456789abcdef", "a-very-private-message"
NOWHERE = {
    "UPSTASH_REDIS_REST_URL": "http://127.0.0.1:9",
    "UPSTASH_REDIS_REST_TOKEN": SECRET,
    "OVERLOAD_STORE_DEADLINE_S": 0.2,
}
FAILS = "def handle(payload):\n    raise ValueError('this one fails')\n"


def lines_of(log: Path) -> list[dict[str, Any]]:
    """Every line, each of which must be a JSON object."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def line_with(log: Path, text: str) -> dict[str, Any]:
    """The first line whose message holds ``text``; waits for it."""
    wait_until(f"a line contains {text!r}", lambda: text in log.read_text())
    return next(line for line in lines_of(log) if text in line["message"])


def test_a_job_can_be_followed_by_its_ids_through_api_and_worker(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    with api_process(tmp_path, OVERLOAD_LOG_FORMAT="json") as (api, client):
        answer = client.post("/jobs", json=JOB, headers={"X-Request-ID": "order-17/a:b"})
        job_id = answer.json()["job_id"]
        with worker_process(tmp_path, OVERLOAD_LOG_FORMAT="json", WORKER_HANDLER="fails:handle") as worker:
            wait_for(client, [job_id], "failed")
            failed = line_with(worker.log, job_id)
        accepted = line_with(api.log, job_id)
        store = (tmp_path / "data" / "store.log").read_text().splitlines()
        of_gateway = [
            json.loads(line) for line in store if line.startswith("{")
        ]  # the server's own lines have another format
        all_lines = lines_of(api.log) + lines_of(worker.log) + of_gateway

    assert (accepted["job_id"], accepted["request_id"]) == (job_id, "order-17/a:b")
    [found] = [line for line in all_lines if "exception" in line]
    assert (found["job_id"], found["exception"].splitlines()[-1]) == (job_id, "ValueError: this one fails")
    assert (failed["job_id"], failed["attempt"], failed["level"]) == (job_id, 1, "WARNING")
    for line in all_lines:
        assert {"time", "level", "logger", "process", "message"} <= line.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds()) < 600
    assert any("server started" in line["message"] for line in of_gateway)


def test_an_error_response_and_its_log_line_carry_the_same_id(tmp_path: Path) -> None:
    with api_process(tmp_path, OVERLOAD_LOG_FORMAT="json", **NOWHERE) as (api, client):
        for given in ("abc-123", None):
            answer = client.post("/jobs", json=JOB, headers={"X-Request-ID": given} if given else {})

            assert_problem(answer, 503)
            found = answer.headers["x-request-id"]
            assert found == given or (given is None and re.fullmatch(r"[0-9a-f]{16}", found))
            wait_until("it is logged", lambda found=found: found in api.log.read_text())
            [line] = [line for line in lines_of(api.log) if line.get("request_id") == found]
            assert (line["level"], line["message"][:12]) == ("WARNING", "answered 503")
            assert re.fullmatch("job_[0-9a-f]+", line["job_id"])


@pytest.mark.parametrize("given", ["", "x" * 129, 'a"b', "a b", "a\tb", "é".encode().decode("latin-1")])
def test_an_unsafe_request_id_is_replaced(settings: Settings, store: Store, given: str) -> None:
    with serving_api(settings, store) as client:
        answer = client.get("/nothing", headers={b"X-Request-ID": given.encode("latin-1")})

    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])


def test_neither_tokens_nor_keys_nor_payloads_are_logged(tmp_path: Path) -> None:
    secrets = {"OVERLOAD_API_KEYS": KEY, "OVERLOAD_LOG_FORMAT": "json"}
    with api_process(tmp_path, **secrets, **NOWHERE) as (api, client):
        client.headers["Authorization"] = f"Bearer {KEY}"
        answers = [
            client.post("/jobs", json=JOB | {"message": PAYLOAD}),
            client.post("/jobs", json={"message": PAYLOAD}),
            client.get(f"/{PAYLOAD}"),
        ]
        with worker_process(tmp_path, **secrets, **NOWHERE) as worker:
            line_with(worker.log, "store request failed, retrying")
            line_with(api.log, "answered 503")
            written = api.log.read_text() + worker.log.read_text()

    assert [answer.status_code for answer in answers] == [503, 422, 404]
    assert not [secret for secret in (SECRET, KEY, PAYLOAD) if secret in written]


def test_many_requests_are_summarised_once_a_second(tmp_path: Path, own_queue: dict[str, object]) -> None:
    with api_process(tmp_path, **own_queue) as (api, client):
        submit(client)
        client.headers["X-Request-ID"] = "one-of-many"
        sent: list[str] = []

        def is_summed_up() -> bool:
            """Send some at once: one after the other, they may be too few a second on a busy machine."""
            with ThreadPoolExecutor() as pool:
                for ids in pool.map(lambda _: submit(client, 10), range(5)):
                    sent.extend(ids)
            return "requests in the last" in api.log.read_text()

        wait_until("it is summed up", is_summed_up)

        lines = api.log.read_text().splitlines()

    found = [line for line in lines if "accepted" in line]
    assert 1 <= len(found) < len(sent)
    assert all(line.endswith("(request one-of-many)") for line in found)  # not of the first, which had no id


def test_text_is_the_default_and_names_the_request_id(tmp_path: Path) -> None:
    with api_process(tmp_path, **NOWHERE) as (api, client):
        client.post("/jobs", json=JOB, headers={"X-Request-ID": "order-17"})
        wait_until("it is logged", lambda: "(request order-17)" in api.log.read_text())


def test_an_exception_is_one_object_on_one_line() -> None:
    try:
        raise ValueError("broken\nin two lines")
    except ValueError:
        record = logging.LogRecord("name", logging.ERROR, "", 0, "met %s", ("a bug",), sys.exc_info())

    text = JsonFormatter().format(record)

    found = json.loads(text)
    assert "\n" not in text
    assert found["message"] == "met a bug"
    assert "ValueError: broken" in found["exception"]


@pytest.mark.parametrize("door", ["api", "worker", "store"])
def test_an_unknown_log_format_is_a_one_line_error(tmp_path: Path, door: str) -> None:
    outcome = run_module(f"overload_demo.{door}", env=environment(tmp_path, OVERLOAD_LOG_FORMAT="xml"))

    assert outcome.returncode == 1
    [line] = outcome.stderr.splitlines()
    assert line.startswith("error: OVERLOAD_LOG_FORMAT: ")
    assert not processes_of(tmp_path / "data")
