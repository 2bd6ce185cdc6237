"""Random bytes as replies, over both transports: a result or a typed error, nothing else."""

import asyncio
import sys
from contextlib import AsyncExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overload_demo.errors import StoreError
from overload_demo.rest.client import Upstash
from tests.support import hostile as h

lines = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 503 X", b"HTTP/1.0 200", b"HTTP/1.1 100 Continue", b"HTTP/1.1 204 X", b"HTTP/9.9 0"]
)
HEADERS = b"""
Content-Length: 14|Content-Length: x|Transfer-Encoding: chunked|Content-Encoding: gzip|Connection: close
Upgrade: h2c|X: \xff|X| folded|Upstash-Sync-Token: \xe4|
"""
headers = st.sampled_from([one for line in HEADERS.split(b"\n")[1:-1] for one in line.split(b"|")])
bodies = st.binary(max_size=60) | st.sampled_from(
    [
        b'{"result":"1"}',
        b'[{"result":1}]',
        b'{"error":"x"}',
        b'e\r\n{"result":"1"}\r\n0\r\n\r\n',
        b"ffffffffffffffff\r\n",
    ]
)
replies = st.binary(max_size=200) | st.builds(
    lambda first, more, body: b"\r\n".join([first, *more, b"", body]), lines, st.lists(headers, max_size=4), bodies
)
short = settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
long = settings(short, max_examples=5_000, derandomize=False, print_blob=True)


@pytest.mark.parametrize("how", [short, pytest.param(long, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("host", ["127.0.0.1", h.ELSEWHERE], ids=["on this machine", "elsewhere"])
def test_random_replies_raise_only_typed_errors(monkeypatch: pytest.MonkeyPatch, host: str, how: settings) -> None:
    if host == h.ELSEWHERE and not sys.platform.startswith("linux"):
        pytest.skip("only Linux has a second loopback address without configuration")
    monkeypatch.setattr(h, "HOST", host)
    replies_now = [b""]

    async def reply_raw(writer: asyncio.StreamWriter) -> None:
        await h.raw(replies_now[-1])(writer)

    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        server = runner.run(opened.enter_async_context(h.hostile(reply_raw)))
        store = runner.run(opened.enter_async_context(h.client_of(server.address, timeout_s=5.0)))

        @how
        @given(reply=replies)
        def holds(reply: bytes) -> None:
            replies_now.append(reply)
            runner.run(_exchange(store))

        try:
            holds()
        finally:
            runner.run(opened.aclose())


async def _exchange(store: Upstash) -> None:
    for call in (store.command("INCR", "k"), store.pipeline([["INCR", "k"]])):
        try:
            await call
        except StoreError as error:
            assert "\n" not in str(error)
            assert h.TOKEN not in str(error)
