"""Mistakes with an external or cloud database: each is one clear line, and no data is harmed."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from valkey import Valkey

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.queue.protocol import TYPES
from overload_demo.store.connect import Store, open_store
from overload_demo.store.startup_check import check_store
from tests.support import hostile as h
from tests.support.cloud import server
from tests.support.running import JOB, free_port, make_settings, serving_api, submit, wait_for, working
from tests.support.stores import Rest, standalone_store
from tests.support.tls import tls_before

pytestmark = pytest.mark.anyio
PUT = {"list": ("RPUSH", "x"), "string": ("SET", "x"), "zset": ("ZADD", "1", "x"), "hash": ("HSET", "f", "x")}


@contextmanager
def on_own_server(tmp_path: Path, url: str, **changes: object) -> Iterator[tuple[Settings, Store]]:
    """A queue on the server at ``url``."""
    settings = make_settings(tmp_path, overload_redis_url=url, **changes)
    with open_store(settings) as opened:
        yield settings, opened


def exchange(port: int, *command: str) -> Any:
    """Send a command to the server itself; returns the unparsed reply."""
    with Valkey(port=port, decode_responses=True) as client:
        client.set_response_callback(command[0], lambda reply, **_: reply)
        return client.execute_command(*command)


def a_job_is_done(settings: Settings, opened: Store) -> None:
    with serving_api(settings, opened) as client, working(settings, opened):
        wait_for(client, submit(client, 3))


def test_jobs_are_done_over_tls_with_an_acl_user_and_a_database_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    rights = "queue on >s3cret/pass ~jobs-of-mine:* &* +@all -@admin -@dangerous +info"
    with server(tmp_path / "own", port, "--user", *rights.split()), tls_before(port, tmp_path) as (tls_port, authority):
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        url = f"rediss://queue:s3cret%2Fpass@127.0.0.1:{tls_port}/5"
        with on_own_server(tmp_path, url, overload_key_prefix="jobs-of-mine:") as (settings, opened):
            a_job_is_done(settings, opened)
            assert "db5:" in Rest.to(opened).run("INFO", "keyspace")


def test_an_untrusted_certificate_is_refused_in_one_line(tmp_path: Path) -> None:
    port = free_port()
    with server(tmp_path / "own", port), tls_before(port, tmp_path) as (tls_port, _):
        with pytest.raises(
            ConfigurationError, match=r"cannot connect to the server at 127\.0\.0\.1:.*certificate"
        ) as caught:
            with on_own_server(tmp_path, f"rediss://127.0.0.1:{tls_port}"):
                pass
    assert "\n" not in str(caught.value)


@pytest.mark.exhaustive
def test_tls_to_a_server_without_it_is_refused_in_one_line(tmp_path: Path) -> None:
    port = free_port()
    with server(tmp_path / "own", port):
        with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1"):
            with on_own_server(tmp_path, f"rediss://127.0.0.1:{port}"):
                pass


@pytest.mark.parametrize(
    ("user", "reason"),
    [("queue:wrong", "WRONGPASS"), ("queue:right", "refuses INFO: NOPERM")],
    ids=["a wrong password", "a user without INFO"],
)
def test_a_user_without_the_rights_is_one_line(tmp_path: Path, user: str, reason: str) -> None:
    port = free_port()
    with server(tmp_path / "own", port, "--user", *["queue", "on", ">right", "~*", "+@read", "+ping", "-info"]):
        with pytest.raises(ConfigurationError, match=reason) as caught:
            with on_own_server(tmp_path, f"redis://{user}@127.0.0.1:{port}"):
                pass
    assert "\n" not in str(caught.value)
    assert user.partition(":")[2] not in str(caught.value)


def test_a_read_only_user_is_reported_at_the_start_and_by_every_503(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    rights = ("--user", *["reader", "on", ">right", "~*", "+@read", "+info", "+ping", "+select"])
    with server(tmp_path / "own", port, *rights), caplog.at_level(logging.INFO, "overload_demo"):
        with on_own_server(tmp_path, f"redis://reader:right@127.0.0.1:{port}") as (settings, opened):
            with serving_api(settings, opened) as client:
                refused = client.post("/jobs", json=JOB)
    [reason] = [record.getMessage() for record in caplog.records if "is not usable yet" in record.getMessage()]
    assert "does not allow this (NOPERM)" in reason
    assert (refused.status_code, refused.json()["outcome"]) == (503, "not_enqueued")
    assert "does not allow this" in refused.json()["detail"]


def test_a_full_server_refuses_jobs_and_still_drains(tmp_path: Path) -> None:
    port = free_port()
    with server(tmp_path / "own", port, "--maxmemory-policy", "noeviction"):
        with on_own_server(tmp_path, f"redis://127.0.0.1:{port}/0") as (settings, opened):
            with serving_api(settings, opened) as client:
                waiting = submit(client, 20, message="x" * 1000)
                exchange(port, "CONFIG", "SET", "maxmemory", "1mb")
                refused = client.post("/jobs", json=JOB)
                with working(settings, opened):
                    wait_for(client, waiting)
    assert (refused.status_code, refused.json()["outcome"]) == (503, "not_enqueued")
    assert "full" in refused.json()["detail"]


@pytest.mark.parametrize("name", TYPES)
def test_a_foreign_key_is_refused_at_the_start_and_not_changed(tmp_path: Path, store: Store, name: str) -> None:
    settings, rest = make_settings(tmp_path), Rest.to(store)
    key = f"{settings.overload_key_prefix}jobs:{name}"
    foreign = "hash" if TYPES[name] != "hash" else "list"
    command, *values = PUT[foreign]
    rest.run(command, key, *values)
    before = rest.run("DUMP", key)
    with pytest.raises(ConfigurationError, match=f"{key} is a {foreign}, not a {TYPES[name]}") as caught:
        open_like(settings, store)
    assert "OVERLOAD_KEY_PREFIX" in str(caught.value)
    assert rest.run("DUMP", key) == before
    rest.run("DEL", key)


def test_a_foreign_list_is_refused_at_the_start_and_not_changed(tmp_path: Path, store: Store) -> None:
    settings, rest = make_settings(tmp_path), Rest.to(store)
    key = f"{settings.overload_key_prefix}jobs:queue"
    rest.run("RPUSH", key, '{"their": "job"}')
    with pytest.raises(ConfigurationError, match="entries that are no job ids"):
        open_like(settings, store)
    assert rest.run("LRANGE", key, 0, -1) == ['{"their": "job"}']
    rest.run("DEL", key)


def test_an_existing_queue_is_opened_again(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path)
    with serving_api(settings, store) as client, working(settings, store):
        wait_for(client, submit(client, 3))
    open_like(settings, store)


def test_foreign_data_that_appears_later_is_a_503_with_the_reason_and_not_changed(tmp_path: Path, store: Store) -> None:
    settings, rest = make_settings(tmp_path), Rest.to(store)
    key = f"{settings.overload_key_prefix}jobs:queue"
    with serving_api(settings, store) as client:
        rest.run("SET", key, "theirs")
        answers = [client.post("/jobs", json=JOB), client.get("/queue/stats")]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert all("WRONGTYPE" in answer.json()["detail"] for answer in answers)
    assert rest.run("GET", key) == "theirs"
    rest.run("DEL", key)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--cluster-enabled", "yes"), "cluster"),
        (("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"), "evicts"),
    ],
    ids=["cluster", "eviction"],
)
async def test_a_database_behind_a_rest_url_that_reports_itself_unsafe_is_refused(
    tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    """This gateway refuses such a server; another gateway may serve it."""
    port = free_port()
    bus = ("--cluster-port", str(free_port()))  # by itself it is 10,000 above the port, and may be none
    with server(tmp_path / "own", port, *options, *bus):
        info = exchange(port, "INFO")
    replies = [1, info, None, ["0", []], None, *(["none"] * len(TYPES)), "PONG"]
    async with h.hostile(h.answer(200, [{"result": one} for one in replies])) as gateway:
        with pytest.raises(ConfigurationError, match=reason):
            await asyncio.to_thread(open_like, make_settings(tmp_path), (gateway.address, None))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (h.answer(401, {"error": "WRONGPASS invalid or missing auth token"}), "refused the token"),
        (h.answer(200, b"<html>Sign in to the Wi-Fi</html>"), "without JSON"),
        (
            h.answer(400, {"error": "ERR max requests limit exceeded. Limit: 5, Usage: 5"}),
            "command quota is used up",
        ),
    ],
    ids=["a wrong token", "a proxy that answers HTML", "a used-up month"],
)
async def test_a_temporary_problem_is_logged_at_the_start_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, script: h.Script, reason: str
) -> None:
    async with h.hostile(script) as gateway:
        with caplog.at_level(logging.INFO, "overload_demo"):
            await asyncio.to_thread(open_like, make_settings(tmp_path), (gateway.address, None))
    [line] = [record.getMessage() for record in caplog.records if "is not usable yet" in record.getMessage()]
    assert reason in line
    assert h.TOKEN not in line


def test_a_slash_at_the_end_of_the_url_changes_nothing(tmp_path: Path) -> None:
    with standalone_store(tmp_path / "data") as rest:
        settings = make_settings(
            tmp_path, upstash_redis_rest_url=f"{rest.url}/", upstash_redis_rest_token=SecretStr(rest.token)
        )
        with open_store(settings) as opened:
            a_job_is_done(settings, opened)


def open_like(settings: Settings, opened: Store) -> None:
    """Look at a store that runs already as :func:`open_store` does."""
    check_store(opened[0], settings)
