"""A client that offers another protocol is served in HTTP/1.1, as if there were no offer."""

import itertools
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from overload_demo.config import Settings
from overload_demo.store.connect import Store
from tests.support.running import serving_api
from tests.support.sockets import BODY, CHUNKED_HEAD, answers_until_closed, connections, post, read_answer
from tests.support.stores import payload_in_store

# What Java's HttpClient and `curl --http2` send.
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\nUpgrade: h2c\r\n"
OFFERS = {
    "HTTP/2": H2C,
    "WebSocket": b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "TLS": b"Connection: upgrade\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n",
    "an unknown one": b"Connection: Upgrade\r\nUpgrade: foo/2\r\nUpgrade: bar\r\n",
}


@pytest.fixture
def client(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    """A client of an API with its own queue."""
    with serving_api(settings, store) as one:
        yield one


def accepted(client: httpx.Client) -> int:
    return int(client.get("/queue/stats").json()["accepted"])


def with_offer(request: bytes, offer: bytes) -> bytes:
    return request.replace(b"\r\n", b"\r\n" + offer, 1)


@pytest.mark.parametrize("name", OFFERS)
def test_an_offer_is_ignored_with_and_without_a_body(
    client: httpx.Client, settings: Settings, store: Store, name: str
) -> None:
    chunks = CHUNKED_HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connections(client, 1) as [connection]:
        for request, status in ((post(), 202), (chunks, 202), (health, 200), (post(b"{}"), 422), (post(b"x"), 400)):
            connection.sendall(with_offer(request, OFFERS[name]))
            answer = read_answer(connection)
            assert (answer.status, "upgrade" in answer.headers) == (status, False)
            if status == 202:
                assert payload_in_store(settings, store, answer.body["job_id"])["value"] == 1
    assert accepted(client) == 2


def test_requests_pipelined_after_an_offer_are_answered(client: httpx.Client) -> None:
    offers = with_offer(post(), H2C) + post() + with_offer(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", H2C)
    with connections(client, 1) as [connection]:
        connection.sendall(offers * 30)
        statuses = [read_answer(connection).status for _ in range(90)]

    assert statuses == [202, 202, 200] * 30
    assert accepted(client) == 60


def test_an_offer_in_pieces_is_ignored_too(client: httpx.Client) -> None:
    request = with_offer(post(more_headers=b"Cookie: " + b"c" * 17_000 + b"\r\n"), H2C) * 2
    cuts = sorted({0, *range(1, 400, 7), *range(1, len(request), 1_500), len(request)})
    with connections(client, 1) as [connection]:
        for start, end in itertools.pairwise(cuts):
            connection.sendall(request[start:end])
        assert [read_answer(connection).status for _ in range(2)] == [202, 202]


@pytest.mark.parametrize(
    "request_",
    [post(BODY[:-1], declared=len(BODY)), CHUNKED_HEAD + b"zz\r\n", post(more_headers=b"Content-Length: 1\r\n")],
)
def test_an_offer_does_not_make_a_bad_request_valid(client: httpx.Client, request_: bytes) -> None:
    with connections(client, 1) as [connection]:
        connection.sendall(with_offer(request_, H2C))
        connection.shutdown(1)

        assert [answer.status for answer in answers_until_closed(connection)] == [400]
    assert accepted(client) == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("form", [["--http2"], ["--http2", "-H", "Transfer-Encoding: chunked"], ["--http1.0"]])
def test_curl_submits_a_job_when_it_offers_http2(client: httpx.Client, form: list[str]) -> None:
    command = ["curl", "-sS", "-w", "%{http_code}", "--noproxy", "*", "-H", "Content-Type: application/json"]
    run = subprocess.run(
        [*command, *form, "-d", BODY, f"{client.base_url}/jobs"], capture_output=True, text=True, timeout=20
    )

    assert run.stdout.endswith("202"), run.stdout + run.stderr
    assert accepted(client) == 1
