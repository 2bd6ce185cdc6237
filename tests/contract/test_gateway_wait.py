"""A pipeline that ends with WAIT: on a connection of its own, for as long as it asks, delaying no other request."""

import concurrent.futures
import re
import time
from pathlib import Path
from typing import Any

import pytest

from overload_demo.store.gateway.upstream import MAX_LENT
from tests.support.stores import Reply, Rest, read_connection_lines, start_standalone, stop
from tests.support.waiting import wait_until

LONG_MS = 3_000  # no replica is there, so a WAIT lasts as long as it may


def waiting(rest: Rest, *before: list[Any], ms: int = LONG_MS) -> Reply:
    return rest.post("/pipeline", [*before, ["WAIT", 1, ms]])


def clients(rest: Rest) -> int:
    """Connections that the server has from the gateway."""
    found = re.search(r"connected_clients:(\d+)", rest.run("INFO", "clients"))
    assert found
    return int(found[1])


def blocked(rest: Rest) -> int:
    found = re.search(r"blocked_clients:(\d+)", rest.run("INFO", "clients"))
    assert found
    return int(found[1])


def test_the_commands_before_it_are_carried_out_and_answered_in_order(rest: Rest) -> None:
    reply = waiting(rest, ["SET", "k", "v"], ["GET", "k"], ["NO", "SUCH"], ["BLPOP", "k", 0], ms=1)
    assert reply.status == 200
    first, second, third, fourth, last = reply.body
    assert (first, second, last) == ({"result": "OK"}, {"result": "v"}, {"result": 0})
    assert "error" in third
    assert "not allowed in REST" in fourth["error"]


def test_it_lasts_as_long_as_it_asks_and_other_requests_are_served_meanwhile(rest: Rest) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        since = time.monotonic()
        one = pool.submit(waiting, rest, ["SET", "k", "v"])
        wait_until("it waits", lambda: blocked(rest) == 1)
        assert rest.run("GET", "k") == "v"
        assert rest.post("/pipeline", [["WAIT", 1, 60_000]]).body == [{"result": 0}], "alone it confirms nothing"
        assert rest.run("WAIT", 1, 60_000) == 0
        assert not one.done()
        assert one.result().body == [{"result": "OK"}, {"result": 0}]
        assert time.monotonic() - since >= LONG_MS / 1000


@pytest.mark.parametrize("others", [[], [["PING"]]], ids=["alone", "behind"])
def test_a_wait_in_the_middle_or_alone_stays_cut(rest: Rest, others: list[Any]) -> None:
    reply = rest.post("/pipeline", [["WAIT", 1, 600_000], *others])
    assert reply.body[0] == {"result": 0}
    assert rest.post("/multi-exec", [["SET", "k", "v"], ["WAIT", 1, 600_000]]).body[-1] == {"result": 0}


def test_connections_are_used_again(rest: Rest) -> None:
    waiting(rest, ["PING"], ms=1)
    before = clients(rest)
    for _ in range(20):
        waiting(rest, ["PING"], ms=1)
    assert clients(rest) <= before


def test_so_many_wait_at_a_time_and_further_ones_are_refused(rest: Rest) -> None:
    with concurrent.futures.ThreadPoolExecutor(MAX_LENT) as pool:
        served = [pool.submit(waiting, rest, ["INCR", "n"]) for _ in range(MAX_LENT)]
        wait_until("all wait", lambda: blocked(rest) == MAX_LENT)
        refused = [waiting(rest, ["INCR", "n"]) for _ in range(8)]
        assert {one.result().status for one in served} == {200}
    assert all(reply.status == 503 and "nothing was done, try again" in reply.body["error"] for reply in refused)
    assert rest.run("GET", "n") == str(MAX_LENT)


def test_a_client_that_leaves_while_it_waits_leaves_no_connection_behind(rest: Rest) -> None:
    before = clients(rest)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            rest.send("POST", "/pipeline", b'[["PING"],["WAIT","1","1000"]]', timeout_s=0.05)
    wait_until("no request waits", lambda: blocked(rest) == 0)
    assert clients(rest) <= before + 5
    for _ in range(5):
        waiting(rest, ["PING"], ms=1)
    assert clients(rest) <= before + 5


def test_the_read_only_token_may_not_wait(rest: Rest) -> None:
    reply = waiting(Rest(rest.url, rest.read_only_token), ["GET", "k"])
    assert reply.body[0] == {"result": None}
    assert reply.body[1]["error"].startswith("NOPERM")


def test_a_store_that_ends_completes_a_wait_and_reports_no_error(tmp_path: Path) -> None:
    started = start_standalone(tmp_path)
    rest = read_connection_lines(started)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        reply = pool.submit(waiting, rest, ["SET", "k", "v"], ms=1_500)  # less than the store's grace
        wait_until("it waits", lambda: blocked(rest) == 1)
        assert stop(started) == (0, "")
        assert reply.result().body == [{"result": "OK"}, {"result": 0}]
