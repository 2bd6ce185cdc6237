"""Bounds on what a client may consume (OWASP API4) and learn (API8): each exists, and is small.

Bounds with tests elsewhere: bodies, depth, numbers and keys in ``test_jobs_contract``; heads, chunks and
pipelines in ``test_bad_requests``; connections, slow and silent clients in ``test_bad_clients`` and
``test_front_door``; the depth of the queue in ``test_bounds``; batches in ``test_group_commit``, ``test_queue_lease``
and ``test_queue_unexpected_data``; what a handler returns in ``test_worker_handlers``; what a store answers in
``test_upstash_answers``; memory of the server in ``test_queue_full_store``.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from overload_demo.api.front_door.gate import connection_cap
from overload_demo.config import Settings, load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.store.connect import Store
from tests.http.test_jobs_contract import assert_problem
from tests.support.running import JOB, make_settings, serving_api


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_settings(tmp_path_factory.mktemp("limits"))


@pytest.fixture(scope="module")
def client(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    with serving_api(settings, store) as one:
        yield one


PATHS = {
    "/jobs": {"POST"},
    "/jobs/job_" + "0" * 32: {"GET", "HEAD", "DELETE"},
    "/queue/stats": {"GET", "HEAD"},
    "/metrics": {"GET", "HEAD"},
    "/health": {"GET", "HEAD"},
    "/health/ready": {"GET", "HEAD"},
    "/openapi.json": {"GET", "HEAD"},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@pytest.mark.parametrize("path", PATHS)
def test_only_listed_methods_are_served_and_a_405_lists_them(client: httpx.Client, path: str) -> None:
    for method in METHODS:
        answer = client.request(method, path, json=JOB if method == "POST" else None)
        if method in PATHS[path]:
            assert answer.status_code in {200, 202, 404}
        else:
            assert answer.status_code == 405
            assert set(answer.headers["allow"].split(", ")) == PATHS[path]
            assert method == "HEAD" or assert_problem(answer, 405)


@pytest.mark.parametrize("path", ["/redoc", "/docs/oauth2-redirect", "/docs/..%2fpages.py", "/.env", "/admin"])
def test_no_other_path_exists(client: httpx.Client, path: str) -> None:
    assert_problem(client.get(path), 404)


def test_no_response_reveals_software_or_internals(client: httpx.Client) -> None:
    answers = [
        client.post("/jobs", json=JOB),
        client.post("/jobs", json={}),
        client.post("/jobs", content=b"\xff"),
        client.get("/jobs/%00%ff"),
        client.get("/nothing"),
        client.put("/jobs"),
        client.get("/queue/stats"),
    ]
    for answer in answers:
        assert not {"server", "x-powered-by"} & {name.lower() for name in answer.headers}
        assert not [word for word in ("Traceback", ".py", "uvicorn", "starlette", "redis") if word in answer.text]


def test_an_error_does_not_echo_the_input(client: httpx.Client) -> None:
    marker = "do-not-repeat-me"

    answer = client.post("/jobs", json={"name": [marker], "value": marker, "message": 1, marker: marker})

    assert marker not in answer.text


def test_strings_are_bounded_by_the_body_and_responses_by_a_job(client: httpx.Client, settings: Settings) -> None:
    limit = settings.overload_max_body_bytes
    assert_problem(client.post("/jobs", json=JOB | {"message": "x" * limit}), 413)
    assert_problem(client.get("/jobs/job_" + "0" * 20_000), 404)
    for answer in (client.get("/queue/stats"), client.get("/health"), client.get("/openapi.json")):
        assert len(answer.content) < 32_768


@pytest.mark.parametrize(
    ("name", "too_much"),
    [
        ("overload_max_body_bytes", 1_000_001),
        ("overload_request_patience_s", 601),
        ("overload_store_deadline_s", 61),
        ("worker_max_batch", 129),
        ("worker_max_attempts", 101),
    ],
)
def test_no_setting_removes_a_bound(name: str, too_much: float) -> None:
    with pytest.raises(ConfigurationError):
        load_settings(**{name: too_much})


def test_connections_are_bounded_by_memory_too(tmp_path: Path) -> None:
    narrow = make_settings(tmp_path, overload_connections_mb=1, overload_max_body_bytes=1_000_000)

    assert connection_cap(narrow, 1) == 8


def test_openapi_names_every_bound_that_a_client_can_reach(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    assert {"202", "400", "413", "415", "422", "429", "503"} <= paths["/jobs"]["post"]["responses"].keys()
    assert {"200", "404", "409", "503"} <= paths["/jobs/{job_id}"]["delete"]["responses"].keys()
    assert "upper bound" in json.dumps(client.get("/openapi.json").json()["components"]["schemas"]["QueuedJob"])
