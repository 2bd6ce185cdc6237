"""The live page bounds what it reads: heads, bodies and host names."""

import contextlib
import socket
from collections.abc import Iterator

import httpx
import pytest

from overload_demo.live.feed import Feed
from overload_demo.live.page import MAX_BODY_BYTES, MAX_HEAD_BYTES, Page
from tests.support.stages import Staged, on_stage
from tests.support.waiting import wait_until

BLOCK = b"x" * 65_536
AT_MOST = 8_000_000  # what the kernel's buffers may hold of a body that is not read


@pytest.fixture
def page() -> Iterator[httpx.URL]:
    """The address of a page that only shows."""
    with Page(Feed()) as one:
        yield httpx.URL(one.address)


def flood(page: httpx.URL, head: bytes, limit: int = 200_000_000) -> tuple[int, bytes]:
    """Send a head, then bytes without end, until refused; returns how many were sent, and the answer's first line."""
    sent, answer = 0, b""
    with socket.create_connection((page.host, page.port), timeout=10) as connection:
        connection.sendall(head)
        with contextlib.suppress(ConnectionError):
            while sent < limit:
                connection.sendall(BLOCK)
                sent += len(BLOCK)
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(200)
    return sent, answer.partition(b"\r\n")[0]


def test_a_body_without_the_token_is_not_read(page: httpx.URL) -> None:
    head = b"POST /control/reset HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000000\r\n\r\n"

    sent, _ = flood(page, head)

    assert sent < AT_MOST


def test_headers_are_bounded(page: httpx.URL) -> None:
    sent, _ = flood(page, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")

    assert sent < AT_MOST
    large = {"Cookie": "c" * (MAX_HEAD_BYTES // 2)}
    assert httpx.get(page, headers=large, trust_env=False).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "10.0.0.1", "a b"])
@pytest.mark.parametrize("path", ["", "panels.json", "live.js", "events", "control/reset"])
def test_another_host_name_is_refused(page: httpx.URL, host: str, path: str) -> None:
    method = "POST" if path.startswith("control") else "GET"

    answer = httpx.request(method, page.join(path), headers={"Host": host}, trust_env=False)

    assert answer.status_code == 400


def test_a_setting_names_the_host_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERLOAD_ALLOWED_HOSTS", "hub.example")
    with Page(Feed()) as page:
        assert httpx.get(page.address, headers={"Host": "hub.example"}, trust_env=False).status_code == 200


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    """A stage whose stack does not run."""
    with on_stage(tmp_path_factory.mktemp("stage"), is_running=False) as staged:
        yield staged


def test_with_the_token_a_body_is_bounded_and_an_offer_of_another_protocol_ignored(stage: Staged) -> None:
    url, _, token = stage.address.partition("#")
    headers = {"X-Control-Token": token, "Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"}

    large = httpx.post(f"{url}control/spike", headers=headers, content=b" " * MAX_BODY_BYTES + b"{}", trust_env=False)
    wrong = httpx.post(f"{url}control/spike", headers=headers, json={"peak": -1}, trust_env=False)

    assert (large.status_code, wrong.status_code) == (413, 422)
    wait_until("no act has started", lambda: stage.feed.state["status"] == "ready")


def test_an_extra_slash_is_not_redirected(page: httpx.URL) -> None:
    answer = httpx.get(page.join("/live.js/"), trust_env=False)

    assert (answer.status_code, "location" in answer.headers) == (404, False)
