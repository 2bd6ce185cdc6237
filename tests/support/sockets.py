"""Clients without a library: bytes sent on a socket, and the responses."""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import httpx

BODY = b'{"name":"a","value":1,"message":"hi"}'
CHUNKED_HEAD = (
    b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def post(body: bytes = BODY, *, declared: int | None = None, more_headers: bytes = b"") -> bytes:
    """One ``POST /jobs``, by default with a true Content-Length."""
    length = len(body) if declared is None else declared
    return (
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
        % (
            more_headers,
            length,
            body,
        )
    )


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


@contextmanager
def connections(client: httpx.Client, count: int) -> Iterator[list[socket.socket]]:
    """Open connections to where the client's requests go."""
    address = (client.base_url.host, client.base_url.port)
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(count)]


def read_answer(connection: socket.socket) -> Answer:
    """The next answer, byte for byte no more than it; every answer of the API declares its length and is JSON."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _some(connection, 1)
    first, *lines = head.decode().rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = b""
    while len(body) < int(headers["content-length"]):
        body += _some(connection, int(headers["content-length"]) - len(body))
    return Answer(int(first.split(" ")[1]), headers, json.loads(body))


def answers_until_closed(connection: socket.socket) -> list[Answer]:
    """Everything that is answered before the other side closes cleanly."""
    answers = []
    while connection.recv(1, socket.MSG_PEEK):
        answers.append(read_answer(connection))
    return answers


def was_closed(connection: socket.socket) -> bool:
    """Wait for the other side; whether it ended the connection instead of sending something."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def reset(connection: socket.socket) -> None:
    """Close at once with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _some(connection: socket.socket, at_most: int) -> bytes:
    data = connection.recv(at_most)
    assert data, "the connection ended in the middle of an answer"
    return data
