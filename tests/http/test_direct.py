"""Plain requests get the responses of FastAPI's ordinary routes, and OpenAPI describes them."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from httptools import HttpRequestParser

from overload_demo.api.app import create_app
from overload_demo.api.direct import DirectRequests
from overload_demo.config import Settings
from overload_demo.store.connect import Store
from tests.support.running import JOB, client_of, make_settings, serving_api, submit, wait_for, working

CORPUS: list[Any] = [
    JOB,
    JOB | {"metadata": {"priority": "normal", "tags": ["a", {"b": [1, 2.5, None, True]}]}},
    JOB | {"metadata": None},
    JOB | {"metadata": {}},
    JOB | {"more": "ignored"},
    JOB | {"value": -1.5},
    JOB | {"value": 10**15},
    JOB | {"value": 1e15},
    JOB | {"value": 0},
    JOB | {"name": "", "message": ""},
    JOB | {"name": "caf\u00e9 \U0001f4a9 \x00 \u2028"},
    JOB | {"message": "x" * 60_000},
    JOB | {"value": 10**15 + 1},
    JOB | {"value": 10**30},
    JOB | {"value": "42"},
    JOB | {"value": True},
    JOB | {"value": None},
    JOB | {"value": [1]},
    JOB | {"expires_in_s": 5},
    JOB | {"expires_in_s": 0.25},
    JOB | {"expires_in_s": None},
    JOB | {"expires_in_s": 31_536_000},
    JOB | {"expires_in_s": 31_536_001},
    JOB | {"expires_in_s": 0},
    JOB | {"expires_in_s": -1},
    JOB | {"expires_in_s": True},
    JOB | {"expires_in_s": "5"},
    JOB | {"expires_in_s": [5]},
    JOB | {"name": 5, "message": None, "value": "x"},
    JOB | {"metadata": "x"},
    JOB | {"metadata": [1]},
    {},
    [],
    [JOB],
    None,
    5,
    "text",
    True,
]
RAW = [
    json.dumps(JOB, indent=4).encode(),
    b"\n\t " + json.dumps(JOB).encode() + b"\r\n ",
    json.dumps(JOB | {"name": "\u00e4"}).encode(),
    json.dumps(JOB | {"name": "\u00e4"}, ensure_ascii=False).encode(),
    b'{"name":"a","name":"b","value":1,"message":"m"}',
    b'{"name":"a","value":1e3,"message":"m"}',
    b'{"name":"a","value":-0,"message":"m"}',
    b'{"name":"a","value":1.0,"message":"m"}',
    b'{"name":"a","value":1,"message":"m","expires_in_s":1e2}',
    b'{"name":"a","value":1,"message":"m","expires_in_s":5,"expires_in_s":6}',
    b"{",
    b"not json",
    b'{"name":"a","value":01,"message":"m"}',
    b'{"name":"a","value":1,"message":"m",}',
    b"{'name':'a'}",
]


DIRECT, ORDINARY = "application/json", "application/json; charset=utf-8"


def without_ids(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    names = ("content-type", "content-length", "location", "connection", "date")
    headers = {name: name in answer.headers if name == "date" else answer.headers.get(name, "") for name in names}
    text = re.sub("job_[0-9a-f]+", "job_ID", json.dumps([answer.json(), headers]))
    body, headers = json.loads(text)
    return answer.status_code, headers, body


def test_plain_requests_are_answered_as_by_the_ordinary_route(settings: Settings, store: Store) -> None:
    """The front door passes on a Content-Type with parameters, which means the same."""
    statuses = set()
    with serving_api(settings, store) as client:
        for body in [json.dumps(one).encode() for one in CORPUS] + RAW:
            direct, ordinary = [
                client.post("/jobs", content=body, headers={"Content-Type": media_type})
                for media_type in (DIRECT, ORDINARY)
            ]
            assert without_ids(direct) == without_ids(ordinary), body[:100]
            assert ("retry-after" in direct.headers) == ("retry-after" in ordinary.headers)
            statuses.add(direct.status_code)

    assert statuses == {202, 400, 422}


def test_polls_are_answered_as_by_the_ordinary_route(settings: Settings, store: Store) -> None:
    """The front door passes on a request with Expect or an Upgrade offer."""
    with serving_api(settings, store) as client:
        failed, *job_ids = submit(client, 1, expires_in_s=1e-9) + submit(client, 3)  # late before the worker starts
        with working(settings, store):
            wait_for(client, job_ids)
            wait_for(client, [failed], "failed")
        for job_id in (*job_ids, failed, "job_" + "0" * 32):
            direct = client.get(f"/jobs/{job_id}")
            ordinary = client.get(f"/jobs/{job_id}", headers={"Connection": "Upgrade", "Upgrade": "h2c"})
            assert without_ids(direct) == without_ids(ordinary)


@pytest.mark.anyio
async def test_only_plain_requests_are_direct(settings: Settings, store: Store) -> None:
    """Otherwise the comparisons would prove nothing."""
    app = create_app(settings, store)
    async with app.router.lifespan_context(app):
        direct = DirectRequests(app.state)

        def is_direct(method: bytes, url: bytes, **headers: bytes) -> bool:
            fields = {"host": b"localhost"} | headers
            pairs = [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
            head = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
            parser = HttpRequestParser(None)
            parser.feed_data(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, url, head))
            return direct.recognize(parser, url, pairs, "127.0.0.1") is not None

        plain = {"content_type": b"application/json", "content_length": b"40"}
        job = b"/jobs/job_" + b"0" * 32
        assert is_direct(b"POST", b"/jobs", **plain)
        assert is_direct(b"POST", b"/jobs", **plain, x_request_id=b"x", accept=b"*/*")
        assert is_direct(b"GET", job)
        assert not is_direct(b"POST", b"/jobs")
        assert not is_direct(b"PUT", b"/jobs", **plain)
        assert not is_direct(b"POST", b"/jobs?x=1", **plain)
        assert not is_direct(b"POST", b"/jobs", **plain | {"content_type": ORDINARY.encode()})
        assert not is_direct(b"POST", b"/jobs", **plain | {"content_length": b"65537"})
        assert not is_direct(b"POST", b"/jobs", **plain, host=b"evil.example")
        for name in ("idempotency_key", "content_encoding", "expect", "upgrade"):
            assert not is_direct(b"POST", b"/jobs", **plain, **{name: b"x"}), name
        assert not is_direct(b"GET", job, content_length=b"1")
        assert not is_direct(b"GET", job, transfer_encoding=b"chunked")
        assert not is_direct(b"GET", job + b"?x=1")
        assert not is_direct(b"GET", b"/jobs/x")
        assert not is_direct(b"HEAD", job)


@pytest.mark.anyio
async def test_every_response_matches_openapi(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, overload_max_queue_depth=3)
    app = create_app(settings, store)
    async with client_of(app) as client:
        description = (await client.get("/openapi.json")).json()
        answers = {
            "POST /jobs": [
                await client.post("/jobs", json=JOB, headers={"Idempotency-Key": "a"}),
                await client.post("/jobs", json={}),
                await client.post("/jobs", content=b"x", headers={"Content-Type": "application/json"}),
                await client.post("/jobs", json=JOB | {"message": "x" * 70_000}),
                await client.post("/jobs", content=b"x", headers={"Content-Type": "text/plain"}),
                await client.post("/jobs", json={**JOB, "value": 1}, headers={"Idempotency-Key": "a"}),
                *[await client.post("/jobs", json=JOB) for _ in range(3)],
            ],
            "GET /queue/stats": [await client.get("/queue/stats")],
            "GET /health": [await client.get("/health")],
            "GET /health/ready": [await client.get("/health/ready")],
        }
        job_id = answers["POST /jobs"][0].json()["job_id"]
        answers["GET /jobs/{job_id}"] = [await client.get(f"/jobs/{job_id}"), await client.get("/jobs/x")]

    for name, sent in answers.items():
        for answer in sent:
            validate(description, name, answer)
    assert {answer.status_code for answer in answers["POST /jobs"]} == {202, 400, 413, 415, 422, 429}


def validate(description: dict[str, Any], name: str, answer: httpx.Response) -> None:
    """Check that the status is documented and the body matches its schema."""
    method, path = name.split(" ")
    documented = description["paths"][path][method.lower()]["responses"]
    assert str(answer.status_code) in documented, f"{name} sent {answer.status_code}"
    media = documented[str(answer.status_code)]["content"]
    schema = media[answer.headers["content-type"]]["schema"]
    jsonschema.validate(answer.json(), schema | {"components": description["components"]})
