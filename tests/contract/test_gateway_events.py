"""Server-sent events: published messages reach listeners line by line, and closed listeners hold no resources."""

import contextlib
import http.client
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from overload_demo.store.data_dir import SERVER_SOCKET
from overload_demo.store.gateway.replies import MAX_LISTENERS
from tests.support.stores import Rest, b64, kill, servers_of, standalone_store
from tests.support.waiting import wait_until

STREAM = {"Accept": "text/event-stream"}


@contextlib.contextmanager
def listening(rest: Rest, path: str, method: str = "POST") -> Iterator[http.client.HTTPResponse]:
    """The open response to a request for events, sent as the vendor's client sends it."""
    parts = urlsplit(rest.url)
    link = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        link.request(
            method, path, b"[]" if method == "POST" else None, STREAM | {"Authorization": f"Bearer {rest.token}"}
        )
        answer = link.getresponse()
        assert answer.status == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream"
        yield answer
    finally:
        answer.close()
        link.close()


def next_event(answer: http.client.HTTPResponse) -> str:
    lines = list(iter(lambda: answer.readline().decode(), "\n"))
    assert all(line.startswith("data: ") for line in lines)
    return "\n".join(line.removeprefix("data: ").rstrip("\n") for line in lines)


def clients(rest: Rest) -> int:
    return int(rest.run("INFO", "clients").split("connected_clients:")[1].split()[0])


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_subscriber_receives_published_messages(rest: Rest, method: str) -> None:
    with listening(rest, "/subscribe/chat/r%C3%A4ume", method) as answer:
        assert [next_event(answer), next_event(answer)] == ["subscribe,chat,1", "subscribe,räume,2"]
        assert rest.send("POST", "/publish/chat/hello").body == {"result": 1}
        assert rest.run("PUBLISH", "räume", "a, b\nc\r\nd") == 1
        assert next_event(answer) == "message,chat,hello"
        assert next_event(answer) == "message,räume,a, b\nc\nd"


def test_a_pattern_receives_from_its_channels(rest: Rest) -> None:
    with listening(rest, "/psubscribe/user:*") as answer:
        assert next_event(answer) == "psubscribe,user:*,1"
        rest.run("PUBLISH", "user:42", '{"name": "Ada"}')
        assert next_event(answer) == 'pmessage,user:*,user:42,{"name": "Ada"}'


def test_a_monitor_sees_every_command(rest: Rest) -> None:
    with listening(rest, "/monitor") as answer:
        assert next_event(answer) == '"OK"'
        rest.run("SET", "k", "v")
        assert next_event(answer).endswith('] "SET" "k" "v"')


def test_a_closed_listener_frees_its_connection(rest: Rest) -> None:
    before = clients(rest)
    with listening(rest, "/subscribe/chat"), listening(rest, "/subscribe/chat"):
        assert clients(rest) == before + 2
    wait_until("their connections are closed", lambda: clients(rest) == before)
    assert rest.run("PUBLISH", "chat", "anyone?") == 0


def test_an_invalid_subscription_is_a_400(rest: Rest) -> None:
    for path in ("/subscribe", "/psubscribe", "/monitor/everything"):
        reply = rest.send("POST", path, b"[]", STREAM)
        assert (reply.status, "wrong number of arguments" in reply.body["error"]) == (400, True), path
    special = rest.send("POST", "/subscribe/chat")
    assert special.body == {"error": 'ERR Command "SUBSCRIBE" is not allowed in REST or it has a special context path'}
    for path in ("/subscribe/chat", "/monitor"):
        denied = Rest(rest.url, rest.read_only_token).send("POST", path, b"[]", STREAM)
        assert (denied.status, denied.body["error"][:6]) == (400, "NOPERM")
        assert Rest(rest.url, "wrong").send("POST", path, b"[]", STREAM).status == 401


def test_the_store_ends_with_open_listeners(rest: Rest, shared_dir: Path, tmp_path: Path) -> None:
    """With an external server it is the gateway that ends the response."""
    with contextlib.ExitStack() as stack:
        short = stack.enter_context(tempfile.TemporaryDirectory())  # a socket's path has at most 107 bytes
        (Path(short) / "s").symlink_to(shared_dir / SERVER_SOCKET)
        with standalone_store(tmp_path, OVERLOAD_REDIS_URL=f"unix://{short}/s") as before:
            answer = stack.enter_context(listening(before, "/subscribe/chat"))
            assert next_event(answer) == "subscribe,chat,1"
            assert rest.run("PUBLISH", "chat", "hello") == 1
            assert next_event(answer) == "message,chat,hello"
            assert before.post("/", ["ECHO", "x"], Upstash_Encoding="base64").body == {"result": b64("x")}
        assert answer.read() == b"", "the answer ends in order"


def test_the_server_dies_with_open_listeners(tmp_path: Path) -> None:
    with standalone_store(tmp_path) as rest, listening(rest, "/subscribe/chat") as answer:
        assert next_event(answer) == "subscribe,chat,1"
        [server] = servers_of(tmp_path)
        kill(server.pid)
        assert answer.read() == b"", "the answer ends in order, and its client may send another request"


def test_the_number_of_listeners_is_bounded(rest: Rest) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_LISTENERS):
            stack.enter_context(listening(rest, "/subscribe/chat"))
        reply = rest.send("POST", "/subscribe/chat", b"[]", STREAM)
        assert reply[:2] == (400, {"error": "ERR max number of clients reached"})
        assert rest.run("PUBLISH", "chat", "hello") == MAX_LISTENERS
    wait_until("there is room again", lambda: rest.run("PUBSUB", "NUMSUB", "chat") == ["chat", 0])
    with listening(rest, "/subscribe/chat") as answer:
        assert next_event(answer) == "subscribe,chat,1"


def test_a_listener_that_does_not_read_delays_no_request(rest: Rest) -> None:
    parts = urlsplit(rest.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        headers = f"Host: x\r\nAccept: text/event-stream\r\nAuthorization: {rest.token}"
        deaf.sendall(f"GET /subscribe/chat HTTP/1.1\r\n{headers}\r\n\r\n".encode())
        wait_until("it is subscribed", lambda: rest.run("PUBSUB", "NUMSUB", "chat") == ["chat", 1])
        with listening(rest, "/subscribe/chat") as answer:
            assert next_event(answer) == "subscribe,chat,1"
            for _ in range(100):
                assert rest.run("PUBLISH", "chat", "x" * 100_000) >= 1
                assert next_event(answer) == "message,chat," + "x" * 100_000
