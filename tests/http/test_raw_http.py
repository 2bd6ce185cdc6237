"""Bytes that no HTTP library would send: no 5xx, no hang, and no job without a valid request.

After each of them another client's request is answered, and the store holds exactly the jobs that the API accepted.
"""

import itertools
import socket
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overload_demo.store.connect import Store
from tests.support.running import make_settings, serving_api, submit
from tests.support.sockets import BODY, CHUNKED_HEAD, connections, post

# The API is a thread of this process and draws random numbers while hypothesis draws its own.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)
LONG = pytest.mark.timeout(900)
SIZE = b"%x" % len(BODY)
CHUNKS = SIZE + b"\r\n" + BODY + b"\r\n0\r\n\r\n"
JSON = b"Host: localhost\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


def lines(first: bytes, headers: bytes, body: bytes = BODY) -> bytes:
    return first + b"\r\n" + headers + b"\r\n" + body


def posted(headers: bytes, body: bytes = BODY) -> bytes:
    return lines(b"POST /jobs HTTP/1.1", JSON + headers, body)


def chunked(chunks: bytes) -> bytes:
    return CHUNKED_HEAD + chunks


class Case(NamedTuple):
    """The bytes to send, and the expected statuses."""

    sent: bytes
    statuses: list[int]


REFUSED = {
    # contradictory lengths
    "length and chunks": posted(LENGTH + b"Transfer-Encoding: chunked\r\n", CHUNKS),
    "chunks and length": posted(b"Transfer-Encoding: chunked\r\n" + LENGTH, CHUNKS),
    "chunks, and a length that hides a request": posted(
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + post()
    ),
    "two lengths": posted(LENGTH + b"Content-Length: 5\r\n"),
    "the same length twice": posted(LENGTH + LENGTH),
    "a list of lengths": posted(b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY))),
    "a length with a sign": posted(b"Content-Length: +%d\r\n" % len(BODY)),
    "a negative length": posted(b"Content-Length: -1\r\n"),
    "a length in hex": posted(b"Content-Length: 0x%x\r\n" % len(BODY)),
    "a length with a blank inside": posted(b"Content-Length: 3 7\r\n"),
    "a length beyond all numbers": posted(b"Content-Length: %s\r\n" % (b"9" * 30)),
    "an empty length": posted(b"Content-Length:\r\n"),
    "a length in other digits": posted("Content-Length: ٣٧\r\n".encode()),
    "an unknown coding": posted(b"Transfer-Encoding: xchunked\r\n", CHUNKS),
    "chunks that are not the last coding": posted(b"Transfer-Encoding: chunked, identity\r\n", CHUNKS),
    "chunks in a blank of another kind": posted(b"Transfer-Encoding: \x0bchunked\r\n", CHUNKS),
    "a blank before the colon": posted(b"Transfer-Encoding : chunked\r\n", CHUNKS),
    "a length with a blank before the colon": posted(b"Content-Length : %d\r\n" % len(BODY)),
    "a coding in a folded line": posted(b"Transfer-Encoding:\r\n chunked\r\n" + LENGTH, CHUNKS),
    # chunks
    "a chunk's size in 0x": chunked(b"0x" + CHUNKS),
    "a chunk's size with a sign": chunked(b"+" + CHUNKS),
    "a negative chunk": chunked(b"-1\r\n" + BODY),
    "a chunk without a size": chunked(b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk beyond all numbers": chunked(b"FFFFFFFFFFFFFFFF" + CHUNKS),
    "a chunk as long as a wrapped number": chunked(b"1" + b"0" * 16 + CHUNKS),
    "a chunk of another end": chunked(SIZE + b"\r\n" + BODY + b"XX0\r\n\r\n"),
    "a chunk without an end": chunked(SIZE + b"\r\n" + BODY + b"0\r\n\r\n"),
    "a chunk ended by a bare line feed": chunked(SIZE + b"\n" + BODY + b"\n0\n\n"),
    "an extension with a line feed": chunked(SIZE + b";a\nb\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk's size with a NUL": chunked(SIZE + b"\0\r\n" + BODY + b"\r\n0\r\n\r\n"),
    # headers
    "a folded header": posted(b"X: a\r\n b\r\n" + LENGTH),
    "a NUL in a header": posted(b"X: a\0b\r\n" + LENGTH),
    "a carriage return in a header": posted(b"X: a\rb\r\n" + LENGTH),
    "two hosts": posted(b"Host: y\r\n" + LENGTH),
    "a header without a colon": posted(b"X\r\n" + LENGTH),
    "a header without a name": posted(b": x\r\n" + LENGTH),
    "a name with a blank": posted(b"X Y: x\r\n" + LENGTH),
    "a name in latin-1": posted(b"\xe4: x\r\n" + LENGTH),
    "headers that begin with a blank": lines(b"POST /jobs HTTP/1.1", b" X: y\r\n" + JSON + LENGTH),
    # request lines
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/0.9 with a body": b"POST /jobs\r\n\r\n" + BODY,
    "HTTP/2 by its name": lines(b"POST /jobs HTTP/2.0", JSON + LENGTH),
    "HTTP/2's first words": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "a version that is none": lines(b"POST /jobs HTTP/1.x", JSON + LENGTH),
    "a method in small letters": lines(b"post /jobs HTTP/1.1", JSON + LENGTH),
    "a malformed method": lines(b"P\0ST /jobs HTTP/1.1", JSON + LENGTH),
    "words after the version": lines(b"POST /jobs HTTP/1.1 x", JSON + LENGTH),
    "a target with a control character": lines(b"POST /jo\x01bs HTTP/1.1", JSON + LENGTH),
    "no target": lines(b"POST HTTP/1.1", JSON + LENGTH),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 600,
    "nothing but NULs": b"\0" * 100,
}
ODD = {
    "a chunk with extensions": Case(chunked(SIZE + b';a=b;c="d"\r\n' + BODY + b"\r\n0;e\r\n\r\n"), [202]),
    "a chunk with zeros before its size": Case(chunked(b"000" + CHUNKS), [202]),
    "trailers that would be a length": Case(
        chunked(SIZE + b"\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n") + post(), [400]
    ),
    "a target in absolute form": Case(lines(b"POST http://x/jobs HTTP/1.1", JSON + LENGTH), [202]),
    "a target on another host": Case(lines(b"POST http://elsewhere/ HTTP/1.1", JSON + LENGTH), [405]),
    "a target in two slashes": Case(lines(b"POST //jobs HTTP/1.1", JSON + LENGTH), [404]),
    "all of the server": Case(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", [404]),
    "TRACE": Case(b"TRACE /jobs HTTP/1.1\r\nHost: localhost\r\n\r\n", [405]),
    "CONNECT": Case(b"CONNECT x:80 HTTP/1.1\r\nHost: localhost\r\n\r\n" + post(), [400]),
    "a request after the last one": Case(post(more_headers=b"Connection: close\r\n") + post(), [202]),
    "a request after the only one of HTTP/1.0": Case(lines(b"POST /jobs HTTP/1.0", JSON + LENGTH) + post(), [202]),
    "HTTP/1.0": Case(lines(b"POST /jobs HTTP/1.0", JSON + LENGTH), [202]),
    "blank lines before a request": Case(b"\r\n\r\n" + post(), [202]),
    "a request that waits for its go": Case(post(more_headers=b"Expect: 100-continue\r\n"), [100, 202]),
    "a request in the place of a body": Case(post(post()), [400]),
    "a request inside a job": Case(post(b'{"name":"POST /jobs HTTP/1.1\\r\\n\\r\\n","value":1,"message":""}'), [202]),
    "a request in an unread body": Case(
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(post()), post()), [200]
    ),
    "a request after one without a body": Case(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + post(), [200, 202]),
    "good and bad ones": Case(post() + post(b"{}") + post() + post(b"x") + post(), [202, 422, 202, 400, 202]),
    "a good one before a bad one": Case(post() + REFUSED["two lengths"] + post(), [202, 400]),
}
CASES = {name: Case(sent, [400]) for name, sent in REFUSED.items()} | ODD


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[httpx.Client]:
    """A client of an API with its own queue."""
    own = make_settings(tmp_path_factory.mktemp("raw"), overload_request_patience_s=5.0)
    with serving_api(own, store) as one:
        yield one


def statuses_of(client: httpx.Client, *pieces: bytes) -> list[int]:
    """Send, close the sending half, and read to the end; checks what must hold for any input."""
    before = accepted(client)
    with connections(client, 1) as [connection]:
        for piece in pieces:
            if not _sent(connection, piece):
                break
        statuses = _statuses(_read_to_the_end(connection))
    assert max(statuses, default=0) < 500
    assert accepted(client) - before == statuses.count(202)
    submit(client)
    return statuses


def accepted(client: httpx.Client) -> int:
    return int(client.get("/queue/stats").json()["accepted"])


def _sent(connection: socket.socket, piece: bytes) -> bool:
    try:
        connection.sendall(piece)
    except OSError:  # it was refused before its end
        return False
    return True


def _read_to_the_end(connection: socket.socket) -> bytes:
    """All bytes of the responses; a connection that is not closed in time is a failure (TimeoutError)."""
    data = b""
    try:
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65_536):
            data += part
    except (ConnectionResetError, BrokenPipeError):
        pass
    except OSError as error:
        if error.errno is None:
            raise
    return data


def _statuses(data: bytes) -> list[int]:
    """The statuses of complete responses, in order."""
    statuses = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *headers = head.split(b"\r\n")
        statuses.append(int(first.split(b" ")[1]))
        declared = [int(line.split(b":")[1]) for line in headers if line.lower().startswith(b"content-length:")]
        assert declared or statuses[-1] == 100, head
        size = declared[0] if declared else 0
        assert len(data) >= size, "an answer was cut off"
        data = data[size:]
    return statuses


@pytest.mark.parametrize("name", CASES)
def test_malformed_requests_get_the_expected_statuses(client: httpx.Client, name: str) -> None:
    assert statuses_of(client, CASES[name].sent) == CASES[name].statuses


short = settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
long = settings(short, max_examples=3_000, derandomize=False, print_blob=True)
both = pytest.mark.parametrize(
    "how", [pytest.param(short, id="short"), pytest.param(long, id="long", marks=[pytest.mark.slow, LONG])]
)
REQUESTS = {
    "with a length": post(),
    "in chunks": chunked(SIZE[:1] + b"\r\n" + BODY[:2] + b"\r\n" + b"23\r\n" + BODY[2:] + b"\r\n0\r\n\r\n"),
    "with a go": post(more_headers=b"Expect: 100-continue\r\n"),
}
requests = st.sampled_from(list(REQUESTS.values()))


@pytest.mark.parametrize("kind", ["with a length", "in chunks"])
def test_a_request_sent_byte_by_byte_is_accepted(client: httpx.Client, kind: str) -> None:
    assert statuses_of(client, *(bytes([byte]) for byte in REQUESTS[kind])) == [202]


@both
def test_a_truncated_request_enqueues_nothing(client: httpx.Client, how: settings) -> None:
    @how
    @given(request=requests, data=st.data())
    def holds(request: bytes, data: st.DataObject) -> None:
        size = data.draw(st.integers(0, len(request) - 1))
        statuses = statuses_of(client, request[:size])
        assert [status for status in statuses if status != 100] == ([400] if size else [])

    holds()


@both
def test_a_request_with_changed_bytes_is_accepted_once_or_not_at_all(client: httpx.Client, how: settings) -> None:
    @how
    @given(request=requests, data=st.data())
    def holds(request: bytes, data: st.DataObject) -> None:
        turned = bytearray(request)
        places = st.tuples(st.integers(0, len(request) - 1), st.integers(0, 255))
        for place, byte in data.draw(st.lists(places, min_size=1, max_size=4)):
            turned[place] = byte
        statuses = statuses_of(client, bytes(turned))
        assert statuses
        assert statuses.count(202) <= 1

    holds()


PIPELINED = {
    post(): 202,
    REQUESTS["in chunks"]: 202,
    post(b"{}"): 422,
    post(b"{"): 400,
    post(post()): 400,
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n": 200,
    b"GET /jobs/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nGET": 404,
    b"PUT /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(post()), post()): 405,
    lines(b"POST /jobs HTTP/1.1", b"Host: localhost\r\nContent-Type: text/plain\r\n" + LENGTH): 415,
}


@both
def test_a_pipeline_is_answered_in_order_up_to_a_malformed_request(client: httpx.Client, how: settings) -> None:
    @how
    @given(
        good=st.lists(st.sampled_from(list(PIPELINED)), max_size=12),
        bad=st.none() | st.sampled_from(list(REFUSED.values())),
        cuts=st.lists(st.integers(0, 3_000), max_size=5),
    )
    def holds(good: list[bytes], bad: bytes | None, cuts: list[int]) -> None:
        stream = b"".join(good) + (bad + post() if bad else b"")
        ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
        pieces = [stream[start:end] for start, end in itertools.pairwise(ends)]

        assert statuses_of(client, *pieces) == [PIPELINED[one] for one in good] + ([400] if bad else [])

    holds()


@both
def test_random_bytes_are_refused(client: httpx.Client, how: settings) -> None:
    @how
    @given(data=st.binary(min_size=1, max_size=200))
    def holds(data: bytes) -> None:
        assert set(statuses_of(client, data)) <= {400}

    holds()
