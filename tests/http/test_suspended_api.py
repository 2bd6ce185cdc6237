"""An API process that was suspended answers requests that arrived meanwhile, and does not reset them."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from overload_demo.api.front_door.gate import CROWDED_IDLE_S
from overload_demo.process import Child
from tests.support.running import api_process
from tests.support.sockets import connections, post, read_answer
from tests.support.waiting import wait_until

PLACES = 8


@contextmanager
def suspended(api: Child, for_s: float) -> Iterator[None]:
    """Suspend the process for the block, and at least for this number of seconds."""
    assert api.pid is not None
    os.kill(api.pid, signal.SIGSTOP)
    until = time.monotonic() + for_s
    try:
        yield
        wait_until("it was held up for long enough", lambda: time.monotonic() > until)
    finally:
        os.kill(api.pid, signal.SIGCONT)


def ready(client: httpx.Client) -> None:
    wait_until("it serves", lambda: client.get("/health").status_code == 200)
    client.close()


def test_a_next_request_sent_during_the_suspension_is_answered(tmp_path: Path, own_queue: dict[str, object]) -> None:
    variables = own_queue | {"OVERLOAD_MAX_CONNECTIONS": PLACES + 1}  # one is just leaving
    with api_process(tmp_path, **variables) as (api, client):
        ready(client)
        with ExitStack() as open_ones:
            inside = open_ones.enter_context(connections(client, PLACES))
            for connection in inside:
                connection.sendall(post())
                assert read_answer(connection).status == 202

            with suspended(api, 2 * CROWDED_IDLE_S):
                outside = open_ones.enter_context(connections(client, 2 * PLACES))
                for connection in [*outside, *inside]:
                    connection.sendall(post())

            assert [read_answer(connection).status for connection in [*inside, *outside]] == [202] * 3 * PLACES
