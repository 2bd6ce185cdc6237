"""What clients, proxies and browsers expect of any HTTP service."""

import gzip
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.api.app import create_app
from overload_demo.config import Settings
from overload_demo.store.connect import Store
from tests.support.running import JOB, client_of, make_settings, serving_api, submit, wait_for, working
from tests.support.sockets import BODY

JSON = {"Content-Type": "application/json"}
OPENMETRICS = "application/openmetrics-text"
PLAIN = "text/plain"


@pytest.fixture
def client(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    """A client of an API with its own queue."""
    with serving_api(settings, store) as one:
        yield one


NEGOTIATED = {
    f"{OPENMETRICS}; version=abc": PLAIN,
    f'{OPENMETRICS}; version="1.0.0': OPENMETRICS,
    f'{OPENMETRICS}; version="1.0.0"': OPENMETRICS,
    f"{OPENMETRICS}; version=": PLAIN,
    f"{OPENMETRICS}; version=1.x.0, {OPENMETRICS}; version=1.0.0": OPENMETRICS,
    f"{OPENMETRICS}; version={'9' * 5000}": PLAIN,
    f"{OPENMETRICS}; version=1.0.0; q=0, {PLAIN}": PLAIN,
    f"{OPENMETRICS}; q=0.000; version=1.0.0": PLAIN,
    f"{OPENMETRICS}; version=1.0.0; q=0.5": OPENMETRICS,
    f"{OPENMETRICS}; q=x": OPENMETRICS,
    f"{PLAIN}; version=x": PLAIN,
    "*/*": PLAIN,
    ",;=,": PLAIN,
    "": PLAIN,
}


@pytest.mark.parametrize("accept", NEGOTIATED)
def test_metrics_are_returned_for_any_accept_header(client: httpx.Client, accept: str) -> None:
    answer = client.get("/metrics", headers={"Accept": accept})

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(NEGOTIATED[accept])


def test_no_accept_header_makes_metrics_fail() -> None:
    metrics = ApiMetrics()
    pieces = st.sampled_from(
        [OPENMETRICS, PLAIN, ";", "version", "=", ",", '"', "q", "0", "1.0.0", " ", "escaping", "\t"]
    )

    @hypothesis_settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(pieces | st.text(max_size=3), max_size=12).map("".join))
    def holds(accept: str) -> None:
        assert metrics.exposition([None], accept)[0]

    holds()


PATHS = ["/jobs", "/queue/stats", "/metrics", "/health", "/health/ready", "/openapi.json", "/docs"]


@pytest.mark.parametrize("path", PATHS)
def test_a_trailing_slash_is_a_404_without_a_redirect(client: httpx.Client, path: str) -> None:
    answer = client.request("POST" if path == "/jobs" else "GET", f"{path}/", json=JOB)

    assert (answer.status_code, "location" in answer.headers) == (404, False)


def test_head_is_answered_like_get_without_the_body(settings: Settings, store: Store, client: httpx.Client) -> None:
    [job_id] = submit(client)
    with working(settings, store):
        wait_for(client, [job_id])
    for path in ["/", *PATHS[1:], f"/jobs/{job_id}", "/jobs/unknown", "/docs/docs.js"]:
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
    assert client.head("/jobs").status_code == 405


KEY = "ada-key-0123456789abcdef"


@pytest.mark.anyio
async def test_behind_a_prefix_health_checks_need_no_key_and_links_carry_the_prefix(
    settings: Settings, store: Store
) -> None:
    """``uvicorn overload_demo.api.app:app --root-path /api``."""
    keyed = settings.model_copy(
        update={"overload_api_keys": make_settings(settings.overload_data_dir, overload_api_keys=KEY).overload_api_keys}
    )
    app = create_app(keyed, store)
    app.root_path = "/api"
    async with client_of(app) as client:
        for path in ("/health", "/health/ready", "/docs", "/openapi.json"):
            assert (await client.get(f"/api{path}")).status_code == 200
        for path in ("/queue/stats", "/metrics", "/jobs/x"):
            assert (await client.get(f"/api{path}")).status_code == 401
        assert (await client.get("/api/")).json()["docs"] == "/api/docs"
        client.headers["Authorization"] = f"Bearer {KEY}"
        answer = await client.post("/api/jobs", json=JOB)
        assert (await client.get(answer.headers["location"])).json()["status"] == "queued"


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "deflate, gzip", "identity, gzip", "unknown"])
def test_an_encoded_body_is_a_415_with_the_accepted_coding(client: httpx.Client, coding: str) -> None:
    for body in (gzip.compress(BODY), BODY):
        answer = client.post("/jobs", content=body, headers=JSON | {"Content-Encoding": coding})

        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
        assert "Content-Encoding" in answer.json()["detail"]


def test_identity_coding_is_accepted(client: httpx.Client) -> None:
    assert client.post("/jobs", content=BODY, headers=JSON | {"Content-Encoding": "identity"}).status_code == 202


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_refused_with_the_reason(client: httpx.Client, encoding: str) -> None:
    answer = client.post("/jobs", content=BODY.decode().encode(encoding), headers=JSON)

    assert (answer.status_code, "byte order mark" in answer.json()["detail"]) == (400, True)
