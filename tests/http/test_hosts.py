"""DNS rebinding: a web page whose name resolves to this machine cannot use the API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from overload_demo.api.app import create_app
from overload_demo.config import Settings, load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.http_server import HostRule
from overload_demo.store.connect import Store
from tests.support.running import JOB, make_settings, serving_api
from tests.support.sockets import BODY, answers_until_closed, connections, read_answer

FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "[::2]",
]
MALFORMED = ["", "a b", "127.0.0.1:x", "user@127.0.0.1", "127.0.0.1/health", "[127.0.0.1", "localhost,evil.example"]
OWN = [
    "localhost",
    "LocalHost:1",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.8.9.1:80",
    "[::1]",
    "[::1]:8000",
    "[::ffff:127.0.0.1]",
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[httpx.Client]:
    """A client of an API on loopback."""
    with serving_api(make_settings(tmp_path_factory.mktemp("hosts")), store) as one:
        yield one


def answers(client: httpx.Client, host: str) -> list[httpx.Response]:
    """One response from each path through the API."""
    client.headers["Host"] = host
    return [
        client.post("/jobs", json=JOB),
        client.post("/jobs", json=JOB, headers={"Idempotency-Key": "k"}),
        client.get("/queue/stats"),
        client.get("/metrics"),
        client.get("/health"),
        client.get("/docs"),
        client.get("/nothing"),
    ]


@pytest.mark.parametrize("host", FOREIGN + MALFORMED)
def test_on_loopback_a_foreign_host_is_refused_without_effect(client: httpx.Client, host: str) -> None:
    for answer in answers(client, host):
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert "ost" in answer.json()["detail"]
    client.headers["Host"] = "localhost"
    assert client.get("/queue/stats").json()["accepted"] == 0


@pytest.mark.parametrize("host", OWN)
def test_every_loopback_name_is_accepted_with_any_port(tmp_path: Path, store: Store, host: str) -> None:
    with serving_api(make_settings(tmp_path), store) as client:
        assert [answer.status_code for answer in answers(client, host)] == [202, 202, 200, 200, 200, 200, 404]


@pytest.mark.parametrize(("allowed", "host"), [("api.example, B.example", "b.Example:80"), ("*", "anything")])
def test_hosts_named_by_the_setting_are_accepted(tmp_path: Path, store: Store, allowed: str, host: str) -> None:
    with serving_api(make_settings(tmp_path, overload_allowed_hosts=allowed), store) as client:
        assert client.post("/jobs", json=JOB, headers={"Host": host}).status_code == 202


@pytest.mark.parametrize(
    ("allowed", "host", "is_accepted"),
    [
        ([], b"api.example", True),
        ([], b"a b", False),
        (["api.example"], b"api.example", True),
        (["api.example"], b"evil.example", False),
        (["api.example"], b"192.0.2.7:8000", True),  # a probe of an orchestrator
        (["api.example"], b"localhost", True),
    ],
)
def test_at_another_address_every_name_is_accepted_unless_the_setting_names_some(
    allowed: list[str], host: bytes, is_accepted: bool
) -> None:
    assert (HostRule(allowed).refusal(host, "192.0.2.7") is None) is is_accepted


@pytest.mark.parametrize("hosts", ["http://api.example", "api.example:80", "api.example,", "a b", "*.example"])
def test_an_invalid_host_in_the_setting_is_a_one_line_error(hosts: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^OVERLOAD_ALLOWED_HOSTS: '.*' is not a host name"):
        load_settings(overload_allowed_hosts=hosts)


HEAD = b"POST /jobs HTTP/1.%d\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: localhost\r\n"])
def test_a_request_of_http_1_1_has_exactly_one_host(client: httpx.Client, hosts: bytes) -> None:
    with connections(client, 1) as [connection]:
        connection.sendall(HEAD % (1, hosts, len(BODY), BODY))

        assert [answer.status for answer in answers_until_closed(connection)] == [400]


def test_a_request_of_http_1_0_needs_no_host(client: httpx.Client) -> None:
    with connections(client, 1) as [connection]:
        connection.sendall(HEAD % (0, b"", len(BODY), BODY))

        assert read_answer(connection).status == 202


@pytest.mark.anyio
async def test_the_app_checks_hosts_under_plain_uvicorn_too(settings: Settings, store: Store) -> None:
    """``uvicorn overload_demo.api.app:app``, whose parser needs no Host."""
    app = create_app(settings, store)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    for headers in ([], [(b"host", b"evil.example")], [(b"host", b"localhost")] * 2):
        async with app.router.lifespan_context(app):
            scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/health", "headers": headers}
            await app({**scope, "server": ("127.0.0.1", 80), "root_path": "", "query_string": b""}, receive, send)
    assert [message["status"] for message in sent if "status" in message] == [400] * 3
