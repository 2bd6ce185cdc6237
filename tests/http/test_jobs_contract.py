"""The HTTP contract, field by field."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from overload_demo.config import Settings
from overload_demo.store.connect import Store
from tests.support.running import JOB, make_settings, serving_api, submit, wait_for, working

UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One queue for all tests here; tests of its depth use their own."""
    return make_settings(tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="module")
def client(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    with serving_api(settings, store) as one:
        yield one


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check that the response is a problem document of that status; returns it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert (type(body["title"]), type(body["detail"]), body["type"]) == (str, str, "about:blank")
    assert "input" not in json.dumps(body.get("errors", []))
    return body


def test_an_accepted_job(client: httpx.Client) -> None:
    answer = client.post("/jobs", json=JOB)

    body = answer.json()
    assert answer.status_code == 202
    assert re.fullmatch(r"job_[0-9a-f]{24,}", body["job_id"])
    assert body == {
        "status": "accepted",
        "job_id": body["job_id"],
        "message": "Job queued successfully. Poll GET /jobs/{job_id} for status.",
    }
    assert answer.headers["location"] == f"/jobs/{body['job_id']}"
    assert answer.headers["content-type"] == "application/json"
    assert 1 <= int(answer.headers["retry-after"]) <= 30


def test_a_queued_job(tmp_path: Path, store: Store) -> None:
    with serving_api(make_settings(tmp_path, worker_processing_delay=2.0), store) as client:
        _, second = submit(client, 2)
        answer = client.get(f"/jobs/{second}")

    expected = {"status": "queued", "job_id": second, "queue_position": 2, "estimated_wait_seconds": 4.0}
    assert (answer.status_code, answer.json()) == (200, expected)
    assert int(answer.headers["retry-after"]) >= 1


def test_a_running_job(tmp_path: Path, store: Store) -> None:
    gate = tmp_path / "gate"
    settings = make_settings(tmp_path, worker_handler="tests.support.handlers:wait_for_file")
    with serving_api(settings, store) as client, working(settings, store):
        [job_id] = submit(client, message=str(gate))
        wait_for(client, [job_id], "processing")

        body = client.get(f"/jobs/{job_id}").json()
        gate.touch()
        wait_for(client, [job_id])

    assert body == {"status": "processing", "job_id": job_id, "started_at": body["started_at"]}
    assert UTC_TIME.fullmatch(body["started_at"])


def test_a_done_job(settings: Settings, store: Store, client: httpx.Client) -> None:
    with working(settings, store):
        [job_id] = submit(client, name="ada")
        wait_for(client, [job_id])

    body = client.get(f"/jobs/{job_id}").json()
    result = body["result"]
    assert body == {"status": "done", "job_id": job_id, "result": result}
    assert result == {
        "message": "Demo processing complete for 'ada'",
        "input_echo": {"name": "ada", "value": 0, "message": JOB["message"], "processed_value": 0},
        "processed_at": result["processed_at"],
        "processing_duration_ms": result["processing_duration_ms"],
    }
    assert UTC_TIME.fullmatch(result["processed_at"])
    assert result["processing_duration_ms"] >= 0


@pytest.mark.parametrize(
    ("text", "doubled"),
    [("42", "84"), ("-7", "-14"), ("1.5", "3.0"), ("42.0", "84.0"), ("1e15", "2000000000000000.0"), ("0", "0")],
)
def test_a_number_keeps_its_type_in_the_result(
    settings: Settings, store: Store, client: httpx.Client, text: str, doubled: str
) -> None:
    with working(settings, store):
        body = f'{{"name": "n", "message": "m", "value": {text}}}'
        job_id = client.post("/jobs", content=body, headers={"Content-Type": "application/json"}).json()["job_id"]
        wait_for(client, [job_id])

    assert f'"processed_value":{doubled}}}' in client.get(f"/jobs/{job_id}").text


def test_the_stats(tmp_path: Path, store: Store) -> None:
    with serving_api(make_settings(tmp_path), store) as client:
        submit(client, 3)

        stats = client.get("/queue/stats").json()

    assert (stats["queue_length"], stats["in_flight"], stats["workers_alive"], stats["accepted"]) == (3, 0, 0, 3)
    for name in ("estimated_wait_seconds", "oldest_age_s", "drain_rate_per_s", "done", "failed", "dead"):
        assert isinstance(stats[name], int | float)
    assert UTC_TIME.fullmatch(stats["timestamp"])
    assert datetime.fromisoformat(stats["timestamp"]).utcoffset() is not None


def test_estimates_multiply_position_by_service_time(tmp_path: Path, store: Store) -> None:
    with serving_api(make_settings(tmp_path, worker_processing_delay=2.0), store) as client:
        ids = submit(client, 3)

        waits = [client.get(f"/jobs/{job_id}").json()["estimated_wait_seconds"] for job_id in ids]
        stats = client.get("/queue/stats").json()

    assert waits == [2.0, 4.0, 6.0]
    assert stats["estimated_wait_seconds"] == 6.0


def test_the_health(client: httpx.Client) -> None:
    answer, ready = client.get("/health"), client.get("/health/ready")

    body = answer.json()
    assert (answer.status_code, ready.status_code) == (200, 200)
    assert body == {
        "status": "healthy",
        "service": "overload-safe-queue-api",
        "version": body["version"],
        "queue_connected": True,
        "timestamp": body["timestamp"],
        "durability": "always",
    }
    assert UTC_TIME.fullmatch(body["timestamp"])


@pytest.mark.parametrize(
    "job_id", ["job_" + "0" * 32, "job_", "x", "..%2f..", "%00", "job_%F0%9F%92%A9", "job_" + "f" * 5000]
)
def test_an_unknown_job_is_404(client: httpx.Client, job_id: str) -> None:
    assert_problem(client.get(f"/jobs/{job_id}"), 404)


def test_an_unknown_path_is_404_and_a_wrong_method_405(client: httpx.Client) -> None:
    assert_problem(client.get("/nothing"), 404)
    assert assert_problem(client.get("/jobs"), 405)
    assert client.get("/jobs").headers["allow"] == "POST"


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_a_media_type_other_than_json_is_a_415(client: httpx.Client, media_type: str) -> None:
    assert_problem(client.post("/jobs", content=json.dumps(JOB), headers={"Content-Type": media_type}), 415)


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", "application/ld+json"],
)
def test_every_json_media_type_is_accepted(client: httpx.Client, media_type: str) -> None:
    answer = client.post("/jobs", content=json.dumps(JOB), headers={"Content-Type": media_type})

    assert answer.status_code == 202


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 1},
        {"name": None},
        {"value": "42"},
        {"value": True},
        {"value": None},
        {"value": 10**15 + 1},
        {"value": -1.1e15},
        {"message": ["x"]},
        {"metadata": 5},
        {"metadata": []},
        {"expires_in_s": 0},
        {"expires_in_s": -0.5},
        {"expires_in_s": 31_536_001},
        {"expires_in_s": False},
        {"expires_in_s": "60"},
        {"expires_in_s": float("nan")},
        {"metadata": {"a": float("nan")}},
    ],
    ids=str,
)
def test_json_that_is_not_a_job_is_a_422(client: httpx.Client, changes: dict[str, Any]) -> None:
    content = json.dumps(JOB | changes)
    answer = client.post("/jobs", content=content, headers={"Content-Type": "application/json"})

    problem = assert_problem(answer, 400 if "NaN" in content else 422)
    if answer.status_code == 422:
        [field] = changes
        assert all(error["loc"][:2] == ["body", field] for error in problem["errors"])
        assert field in problem["detail"]


@pytest.mark.parametrize("missing", ["name", "value", "message"])
def test_a_missing_field_is_named(client: httpx.Client, missing: str) -> None:
    problem = assert_problem(client.post("/jobs", json={k: v for k, v in JOB.items() if k != missing}), 422)

    assert problem["errors"] == [{"loc": ["body", missing], "msg": "Field required", "type": "missing"}]


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b" ", 400),
        (b"not json", 400),
        (b"[]", 422),
        (b"[1]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b"5", 422),
        (json.dumps(JOB).encode("utf-16"), 400),
        (json.dumps(JOB).encode("utf-32-le"), 400),
        (b"\xef\xbb\xbf" + json.dumps(JOB).encode(), 400),
        (json.dumps(JOB).encode().replace(b"Hello", b"\xff\xfe"), 400),
        (json.dumps(JOB).encode()[:-1], 400),
        (json.dumps(JOB).encode() + b"x", 400),
        (b'{"value": %s}' % (b"9" * 5000), 422),
        *[
            (b'{"name": "n", "value": 1, "message": "m", "metadata": {"a": %s}}' % value, status)
            for value, status in [
                (b"NaN", 400),
                (b"Infinity", 400),
                (b"-Infinity", 400),
                (b"1e999", 422),
                (b'"\\ud800"', 422),
                (b'{"\\udc00": 1}', 422),
                (b"9" * 5000, 422),
                (deep(30).encode(), 202),
                (deep(31).encode(), 422),
                (deep(1000).encode(), 422),
                (deep(20_000).encode(), 422),
                (b'"\\ud83d\\ude00"', 202),
                (b"1e308", 202),
            ]
        ],
        (b'{"name": "n", "value": 1e999, "message": "m"}', 422),
        (b'{"name": "\\udc00", "value": 1, "message": "m"}', 422),
        (b'{"name": "n", "value": 1, "message": "m", "other": 1e999}', 422),
        (b'{"name": "n", "name": "m", "value": 1, "message": "m"}', 202),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_body_may_hold_only_strict_json(client: httpx.Client, body: bytes, status: int) -> None:
    accepted_before = accepted(client)

    answer = client.post("/jobs", content=body, headers={"Content-Type": "application/json"})

    if status == 202:
        assert answer.status_code == 202, answer.text
    else:
        assert_problem(answer, status)
        assert accepted(client) == accepted_before


def accepted(client: httpx.Client) -> int:
    return int(client.get("/queue/stats").json()["accepted"])


def body_of(size: int) -> bytes:
    frame = json.dumps(JOB | {"message": ""}).encode()
    return frame.replace(b'"message": ""', b'"message": "' + b"x" * (size - len(frame)) + b'"')


def test_a_body_of_64_kib_is_accepted_and_one_byte_more_is_not(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}

    assert client.post("/jobs", content=body_of(65_536), headers=headers).status_code == 202
    assert_problem(client.post("/jobs", content=body_of(65_537), headers=headers), 413)


def test_a_chunked_body_has_the_same_bound(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}

    def chunks(size: int) -> Iterator[bytes]:
        body = body_of(size)
        yield from (body[at : at + 10_000] for at in range(0, size, 10_000))

    assert client.post("/jobs", content=chunks(65_536), headers=headers).status_code == 202
    assert_problem(client.post("/jobs", content=chunks(65_537), headers=headers), 413)


@pytest.mark.parametrize("key", ["", '""', "x" * 256])
def test_an_unusable_idempotency_key_is_400(client: httpx.Client, key: str) -> None:
    assert_problem(client.post("/jobs", json=JOB, headers={"Idempotency-Key": key}), 400)


def test_an_idempotency_key_works_with_and_without_quotes(client: httpx.Client) -> None:
    ids = {client.post("/jobs", json=JOB, headers={"Idempotency-Key": key}).json()["job_id"] for key in ("a", '"a"')}

    assert len(ids) == 1


def test_another_body_with_the_same_idempotency_key_is_a_422(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "b", "Content-Type": "application/json"}
    client.post("/jobs", content=json.dumps(JOB), headers=headers)

    answer = client.post("/jobs", content=json.dumps(JOB) + " ", headers=headers)

    assert assert_problem(answer, 422)["outcome"] == "not_enqueued"


def test_a_full_queue_is_a_429_with_retry_after(tmp_path: Path, store: Store) -> None:
    with serving_api(make_settings(tmp_path, overload_max_queue_depth=1), store) as client:
        submit(client)
        answer = client.post("/jobs", json=JOB)

    assert assert_problem(answer, 429)["outcome"] == "not_enqueued"
    assert int(answer.headers["retry-after"]) >= 1
