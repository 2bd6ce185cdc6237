"""The bounds on one request and one client: the gateway refuses or disconnects before it holds too much memory."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from overload_demo.store.gateway.commands import MAX_COMMANDS
from overload_demo.store.gateway.endpoint import MAX_HEAD_BYTES, WRITE_TIMEOUT_S
from tests.support.stores import Reply, Rest, gateway_pid
from tests.support.waiting import wait_until

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def gateway(shared: Rest, shared_dir: Path) -> psutil.Process:
    return psutil.Process(gateway_pid(shared_dir))


@contextlib.contextmanager
def memory_grows_less_than(process: psutil.Process, limit: int) -> Iterator[None]:
    """Bound the growth of the process's peak memory, as Linux reports it."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    before = peak(process)
    yield
    assert peak(process) - before < limit


def peak(process: psutil.Process) -> int:
    (line,) = (line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) * 1024


def reader(rest: Rest) -> Rest:
    return Rest(rest.url, rest.read_only_token)


# --- commands and values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
def test_too_many_commands_are_refused_before_they_are_parsed(rest: Rest, gateway: psutil.Process, path: str) -> None:
    body = b"[%b]" % b",".join([b'["PING"]'] * 3_300_000)
    with memory_grows_less_than(gateway, 5 * len(body)):
        reply = rest.send("POST", path, body)
        assert (reply.status, reply.body) == (413, {"error": "ERR too many values in one request. Limit: 1000000"})
    assert reader(rest).send("POST", path, body).status == 413
    reply = rest.post(path, [["PING"]] * (MAX_COMMANDS + 1))
    assert (reply.status, reply.body) == (413, {"error": "ERR too many commands in one request. Limit: 10000"})


def test_as_many_commands_as_are_allowed_are_served_in_order(rest: Rest) -> None:
    reply = rest.post("/pipeline", [["ECHO", str(number)] for number in range(MAX_COMMANDS)])
    assert [item["result"] for item in reply.body] == [str(number) for number in range(MAX_COMMANDS)]


def test_values_inside_strings_are_not_counted(rest: Rest) -> None:
    text = json.dumps(["a", {"b": [1, 2]}]) * 100_000
    assert rest.run("SET", "k", text) == "OK"
    assert rest.run("STRLEN", "k") == len(text)


# --- replies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding", [{}, {"Upstash_Encoding": "base64"}, {"Upstash_Response_Format": "resp2"}], ids=str
)
def test_replies_to_one_request_are_bounded_together(
    rest: Rest, gateway: psutil.Process, encoding: dict[str, str]
) -> None:
    rest.run("SET", "k", "x" * MIB)
    body = json.dumps([["GET", "k"]] * 300).encode()
    headers = {name.replace("_", "-"): value for name, value in encoding.items()}
    with memory_grows_less_than(gateway, 200 * MIB):
        answer = reader(rest).send_for_bytes("POST", "/pipeline", body, headers)
    assert answer.status == 200
    assert answer.body.count(b"ERR max request size exceeded. Limit: 33554432 bytes of replies") == 300 - 31
    assert answer.body.count(b"not carried out") == 300 - 16 - 64
    assert rest.run("STRLEN", "k") == MIB


def test_a_transaction_with_too_large_replies_runs(rest: Rest) -> None:
    rest.run("SET", "k", "x" * MIB)
    reply = rest.post("/multi-exec", [["INCR", "n"], *[["GET", "k"]] * 40])
    assert reply.status == 200
    assert len(reply.body) == 41
    assert all("max request size exceeded" in item["error"] for item in reply.body)
    assert rest.run("GET", "n") == "1"


def test_a_reply_far_larger_than_its_request_fails_that_request_only(rest: Rest, gateway: psutil.Process) -> None:
    rest.run("SET", "k", "x" * (4 * MIB))
    with memory_grows_less_than(gateway, 200 * MIB):
        reply: Reply = reader(rest).post("/", ["MGET", *["k"] * 50])
        assert (reply.status, reply.body["error"][:30]) == (200, "ERR max request size exceeded.")
        reply = reader(rest).post("/", ["MGET", *["k"] * 400])  # more than the server holds for a client
        assert reply.status == 503
    assert rest.run("STRLEN", "k") == 4 * MIB
    assert reader(rest).run("STRLEN", "k") == 4 * MIB


def test_a_reply_of_too_many_elements_is_an_error(rest: Rest) -> None:
    script = "local t = {} for i = 1, 1100 do t[i] = ARGV end return t"
    reply = rest.post("/", ["EVAL", script, 0, *["a"] * 1000])
    assert reply.body["error"].startswith("ERR max request size exceeded. Limit: 1000000 elements")


@pytest.mark.parametrize("depth", [500, 999, 1100])
@pytest.mark.parametrize("encoding", [{}, {"Upstash_Encoding": "base64"}], ids=str)
def test_a_deeply_nested_reply_fails_that_request_only(rest: Rest, depth: int, encoding: dict[str, str]) -> None:
    opened = rest.run("INFO", "stats").split("total_connections_received:")[1].split()[0]
    reply = rest.post("/", ["EVAL", f"local t = 1 for i = 1, {depth} do t = {{t}} end return t", 0], **encoding)
    assert depth < 600 or "error" in reply.body, reply
    if not encoding:
        assert rest.run("INFO", "stats").split("total_connections_received:")[1].split()[0] == opened


# --- heads ------------------------------------------------------------------------------------------------------------


def answer_to(rest: Rest, *pieces: bytes) -> bytes:
    """Send raw bytes for as long as they are accepted; returns the start of the response."""
    parts = urlsplit(rest.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as link:
        with contextlib.suppress(OSError):
            for piece in pieces:
                link.sendall(piece)
        with contextlib.suppress(OSError):
            return link.recv(65536)
    return b""


def test_an_endless_head_is_refused_without_a_token(rest: Rest, gateway: psutil.Process) -> None:
    line = b"POST / HTTP/1.1\r\nHost: x\r\n"
    with memory_grows_less_than(gateway, 20 * MIB):
        for pieces in (
            [line, *[b"a: b\r\n" * 10_000] * 1000],
            [line, b"a: ", *[b"b" * 65_536] * 1000],
            [line, b"Transfer-Encoding: chunked\r\n\r\n0\r\n", *[b"a: b\r\n" * 10_000] * 1000],
        ):
            assert answer_to(rest, *pieces)[:12] in {b"HTTP/1.1 431", b"HTTP/1.1 401", b""}
        assert answer_to(rest, b"GET /", *[b"x" * 65_536] * 100)[:12] in {b"HTTP/1.1 414", b""}


@pytest.mark.parametrize("extra", [1, 60_000])
def test_a_head_past_the_limit_is_refused_even_in_one_piece(rest: Rest, extra: int) -> None:
    long = b"x" * (MAX_HEAD_BYTES + extra)
    assert answer_to(rest, b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % long)[:12] == b"HTTP/1.1 414"
    assert answer_to(rest, b"GET / HTTP/1.1\r\nHost: x\r\na: %b\r\n\r\n" % long)[:12] == b"HTTP/1.1 431"
    assert answer_to(rest, b"\r\n" * len(long))[:12] in {b"HTTP/1.1 431", b""}
    assert answer_to(rest, b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n")[:12] == b"HTTP/1.1 400"


def test_a_head_within_the_limit_is_served(rest: Rest) -> None:
    assert rest.send("GET", f"/echo/{'x' * (MAX_HEAD_BYTES // 2)}").body == {"result": "x" * (MAX_HEAD_BYTES // 2)}


@pytest.mark.parametrize("body_headers", [b"Content-Length: 8\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
@pytest.mark.parametrize("is_split", [False, True])
def test_an_offer_of_another_protocol_is_ignored_and_the_body_read(
    rest: Rest, body_headers: bytes, is_split: bool
) -> None:
    """Java's HttpClient and ``curl --http2`` offer it with each request."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    head = head % rest.token.encode() + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + body_headers
    body = b'["PING"]' if b"Length" in body_headers else b'8\r\n["PING"]\r\n0\r\n\r\n'
    for pieces in ([head, body], [head + body]) if is_split else ([head + body + head + body],):
        answer = answer_to(rest, *pieces)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
        assert answer.endswith(b'{"result":"PONG"}')


def test_many_pipelined_offers_are_ignored(rest: Rest) -> None:
    """One read of the gateway holds more of them than Python's recursion limit."""
    parts, many = urlsplit(rest.url), 2_000
    ping = b"GET /ping HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nConnection: %b\r\n\r\n"
    token = rest.token.encode()
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as link:
        link.sendall(ping % (token, b"Upgrade\r\nUpgrade: h2c") * many + ping % (token, b"close"))
        answers = link.makefile("rb").read()

    assert answers.count(b'{"result":"PONG"}') == many + 1


# --- clients that do not read -----------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_listeners_that_do_not_read_are_disconnected(rest: Rest) -> None:
    parts, before = urlsplit(rest.url), clients(rest)
    with contextlib.ExitStack() as stack:
        for path in ("/monitor", "/subscribe/chat"):
            deaf = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=10))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: {rest.token}\r\n\r\n"
            deaf.sendall(head.encode())
            assert deaf.recv(1) == b"H"
        for _ in range(20):
            rest.run("PUBLISH", "chat", "x" * MIB)
        wait_until("their connections to the server are closed", lambda: clients(rest) == before, 3 * WRITE_TIMEOUT_S)


def clients(rest: Rest) -> int:
    return int(rest.run("INFO", "clients").split("connected_clients:")[1].split()[0])
