"""Malformed requests: refused with the reason, and never read as a shorter or longer request."""

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from overload_demo.config import Settings
from overload_demo.store.connect import Store
from tests.support.running import serving_api, submit
from tests.support.sockets import (
    BODY,
    CHUNKED_HEAD,
    Answer,
    answers_until_closed,
    connections,
    post,
    read_answer,
    reset,
)
from tests.support.stores import in_store

MEGABYTE = b"a" * 1_000_000
PROBLEM = "application/problem+json"


@pytest.fixture
def client(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    """A client of an API with its own queue."""
    with serving_api(settings, store) as one:
        yield one


def assert_only_problem(answers: list[Answer], status: int) -> None:
    [answer] = answers
    assert_problem(answer, status)


def assert_problem(answer: Answer, status: int) -> None:
    assert (answer.status, answer.body["status"]) == (status, status)
    assert (answer.headers["content-type"], answer.headers["connection"]) == (PROBLEM, "close")
    assert answer.body["detail"]


def accepted(client: httpx.Client) -> int:
    return int(client.get("/queue/stats").json()["accepted"])


TOO_LARGE = {
    "one header": (431, b"GET /health HTTP/1.1\r\nX: " + MEGABYTE + b"\r\n\r\n"),
    "many headers": (431, b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 170_000 + b"\r\n"),
    "a few headers too many": (431, b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n"),
    "the URL": (414, b"GET /" + MEGABYTE + b" HTTP/1.1\r\n\r\n"),
    "the method": (400, MEGABYTE),
    "a chunk's extension": (400, CHUNKED_HEAD + b"25;" + MEGABYTE + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a trailer": (400, CHUNKED_HEAD + b"25\r\n" + BODY + b"\r\n0\r\nX: " + MEGABYTE + b"\r\n\r\n"),
    "many trailers": (431, CHUNKED_HEAD + b"25\r\n" + BODY + b"\r\n0\r\n" + b"X: y\r\n" * 170_000 + b"\r\n"),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_a_head_beyond_a_bound_is_refused_with_the_reason(client: httpx.Client, what: str) -> None:
    status, request = TOO_LARGE[what]
    with connections(client, 1) as [connection]:
        connection.sendall(request)

        assert_only_problem(answers_until_closed(connection), status)
    assert accepted(client) == 0


def test_a_large_head_within_the_bounds_is_accepted(client: httpx.Client) -> None:
    cookie, headers = b"Cookie: " + b"c" * 16_000 + b"\r\n", b"X: y\r\n" * 90
    with connections(client, 1) as [connection]:
        for _ in range(3):
            connection.sendall(post(more_headers=cookie + headers))
            assert read_answer(connection).status == 202


@pytest.mark.parametrize("size", [1, 100, 30_000])
def test_a_large_job_may_come_in_chunks_of_any_size(client: httpx.Client, size: int) -> None:
    body = b" " * 60_000 + BODY
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    with connections(client, 1) as [connection]:
        connection.sendall(CHUNKED_HEAD + chunks + b"0\r\n\r\n" + post(body))

        assert [read_answer(connection).status for _ in range(2)] == [202, 202]


@pytest.mark.parametrize("excess", [b"}", b"excess bytes", BODY, b"\x00"])
@pytest.mark.parametrize("comes", ["with the request", "after the answer"])
def test_bytes_beyond_the_content_length_are_refused_after_the_job_is_accepted(
    client: httpx.Client, settings: Settings, store: Store, excess: bytes, comes: str
) -> None:
    with connections(client, 1) as [connection]:
        if comes == "with the request":
            connection.sendall(post() + excess)
            first = read_answer(connection)
        else:
            connection.sendall(post())
            first = read_answer(connection)
            connection.sendall(excess)

        assert first.status == 202
        assert_only_problem(answers_until_closed(connection), 400)
    jobs, queued = in_store(settings, store)
    assert queued == list(jobs) == [first.body["job_id"]]


CUT_SHORT = {
    "in the request line": b"POST /jo",
    "in the headers": post()[:60],
    "before the body": post(b"", declared=37),
    "in the body": post(BODY[:-1], declared=len(BODY)),
    "after a complete job": post(declared=len(BODY) + 1),
    "after a large part": post(b" " * 60_000 + BODY, declared=65_000),
    "in a chunk": CHUNKED_HEAD + b"26\r\n" + BODY,
    "before the last chunk": CHUNKED_HEAD + b"25\r\n" + BODY + b"\r\n",
    "in the last chunk": CHUNKED_HEAD + b"25\r\n" + BODY + b"\r\n0\r\n",
}


@pytest.mark.parametrize("where", CUT_SHORT)
def test_a_request_that_ends_early_enqueues_nothing(
    client: httpx.Client, settings: Settings, store: Store, where: str
) -> None:
    with connections(client, 3) as [half_closed, closed, torn]:
        for connection in (half_closed, closed, torn):
            connection.sendall(CUT_SHORT[where])
        half_closed.shutdown(socket.SHUT_WR)
        closed.close()
        reset(torn)

        assert_only_problem(answers_until_closed(half_closed), 400)
    [good] = submit(client)
    jobs, queued = in_store(settings, store)
    assert queued == list(jobs) == [good]


def test_a_half_closed_client_receives_its_response(client: httpx.Client) -> None:
    with connections(client, 1) as [connection]:
        connection.sendall(post() * 3)
        connection.shutdown(socket.SHUT_WR)

        assert [answer.status for answer in answers_until_closed(connection)] == [202] * 3
    assert accepted(client) == 3


def test_pipelined_jobs_are_answered_in_order_and_each_is_in_the_store_once(
    client: httpx.Client, settings: Settings, store: Store
) -> None:
    values = range(60)
    bodies = [b'{"name":"n","message":"%b","value":%d}' % (b"x" * (value * 500 % 9_000), value) for value in values]
    with connections(client, 1) as [connection]:
        connection.sendall(b"".join(post(body) for body in bodies))
        connection.shutdown(socket.SHUT_WR)

        answers = answers_until_closed(connection)

    assert [answer.status for answer in answers] == [202] * 60
    jobs, queued = in_store(settings, store)
    in_order = [answer.body["job_id"] for answer in answers]
    assert [json.loads(jobs[job_id]["payload"])["value"] for job_id in in_order] == list(values)
    assert sorted(queued) == sorted(jobs) == sorted(set(in_order))


def test_a_bad_request_ends_a_pipeline_after_the_earlier_responses(client: httpx.Client) -> None:
    with connections(client, 1) as [connection]:
        connection.sendall(post() * 3 + CHUNKED_HEAD + b"zz\r\n" + post() * 3)

        *good, bad = answers_until_closed(connection)

        assert [answer.status for answer in good] == [202] * 3
        assert_problem(bad, 400)
    assert accepted(client) == 3
