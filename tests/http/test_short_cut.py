"""The short cut of ``POST /jobs`` gives the responses of FastAPI's ordinary handler, and OpenAPI describes them."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from overload_demo.api.app import create_app
from overload_demo.config import Settings
from overload_demo.store.connect import Store
from tests.support.running import JOB, client_of, make_settings

pytestmark = pytest.mark.anyio

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


def ordinary_app(settings: Settings, store: Store) -> FastAPI:
    """The same app without the short cut, and with FastAPI's own route class for ``POST /jobs``."""
    app = create_app(settings, store)
    app.user_middleware.clear()
    for at, route in enumerate(app.router.routes):
        if isinstance(route, APIRoute) and route.path == "/jobs":
            plain = APIRouter()
            plain.add_api_route(
                route.path,
                route.endpoint,
                methods=list(route.methods),
                status_code=route.status_code,
                response_model=route.response_model,
                responses=route.responses,
                operation_id=route.operation_id,
                openapi_extra=route.openapi_extra,
            )
            app.router.routes[at] = plain.routes[0]
            return app
    raise AssertionError("no route /jobs")


def without_ids(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    names = ("content-type", "location", "allow")
    headers = {name: answer.headers.get(name, "") for name in names}
    text = re.sub("job_[0-9a-f]+", "job_ID", json.dumps([answer.json(), headers]))
    body, headers = json.loads(text)
    if answer.status_code == 400:
        body.pop("detail")  # each parser has another text for the place of the error
    return answer.status_code, headers, body


async def test_the_short_cut_answers_like_the_ordinary_handler(settings: Settings, store: Store) -> None:
    bodies = [json.dumps(one).encode() for one in CORPUS] + RAW
    async with (
        client_of(create_app(settings, store)) as app_client,
        client_of(ordinary_app(settings, store)) as ordinary_client,
    ):
        statuses = set()
        for body in bodies:
            short, ordinary = [
                await client.post("/jobs", content=body, headers={"Content-Type": "application/json"})
                for client in (app_client, ordinary_client)
            ]
            assert without_ids(short) == without_ids(ordinary), body[:100]
            statuses.add(short.status_code)

    assert statuses == {202, 400, 422}


async def test_a_plain_body_does_take_the_short_cut(settings: Settings, store: Store) -> None:
    """Otherwise the comparison would prove nothing: this app has no other path."""
    app = create_app(settings, store)
    app.router.routes.clear()
    async with client_of(app) as client:
        assert (await client.post("/jobs", json=JOB)).status_code == 202
        assert (await client.post("/jobs", json=JOB | {"value": "x"})).status_code == 404


async def test_the_short_cut_does_not_change_openapi(settings: Settings, store: Store) -> None:
    assert create_app(settings, store).openapi() == ordinary_app(settings, store).openapi()


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
