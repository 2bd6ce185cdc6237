"""``OVERLOAD_REDIS_URL``: the gateway in front of a running server, refused when jobs are not safe there."""

import contextlib
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.store.connect import EmbeddedStore
from overload_demo.store.data_dir import DataDir
from overload_demo.store.gateway.backing_server import ExternalServer
from overload_demo.store.redis_server import find_server
from tests.support.cases import plain_first
from tests.support.stores import (
    Rest,
    gateway_pid,
    kill,
    no_process_left_in,
    read_connection_lines,
    servers_of,
    standalone_store,
    start_standalone,
    stop,
)
from tests.support.waiting import wait_until


@contextlib.contextmanager
def own_server(directory: Path, *options: str) -> Iterator[str]:
    """A server as a user might run it; yields its URL."""
    directory.mkdir(exist_ok=True)
    socket_file = directory / "own.sock"
    command = [str(find_server(None)), "--port", "0", "--unixsocket", str(socket_file), "--save", "", *options]
    server = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
    try:
        wait_until("the server listens", socket_file.exists)
        yield f"unix://{socket_file}"
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.parametrize(
    ("options", "durability"),
    plain_first(
        [
            (["--appendonly", "yes", "--appendfsync", "always"], "always"),
            (["--appendonly", "yes", "--appendfsync", "everysec"], "everysec"),
            (["--appendonly", "yes", "--appendfsync", "no"], "none"),
            (["--appendonly", "no"], "none"),
            (["--appendonly", "yes", "--rename-command", "CONFIG", ""], "unknown"),
        ],
        2,
    ),
    ids=lambda value: str(value),
)
def test_durability_is_what_the_server_reports(tmp_path: Path, options: list[str], durability: str) -> None:
    data_dir = tmp_path / "data"
    with own_server(tmp_path / "own", *options) as url, no_process_left_in(data_dir):
        with EmbeddedStore(data_dir, load_settings(overload_redis_url=url)) as store:
            address = store.acquire()
            assert address.durability == durability
            assert Rest(address.url, address.token.get_secret_value()).run("SET", "k", "v") == "OK"
            assert not servers_of(data_dir)
        wait_until("the gateway ended", lambda: not (data_dir / "state.json").exists())
        assert ("can be lost in a crash" in (data_dir / "store.log").read_text()) == (durability != "always")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"], "evicts keys when full"),
        (["--cluster-enabled", "yes"], "is a cluster"),
        (["--requirepass", "right"], "NOAUTH"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_server_that_cannot_keep_jobs_is_refused_in_one_line(tmp_path: Path, options: list[str], reason: str) -> None:
    data_dir = tmp_path / "data"
    with own_server(tmp_path / "own", *options) as url, no_process_left_in(data_dir):
        with pytest.raises(ConfigurationError, match=reason) as caught:
            EmbeddedStore(data_dir, load_settings(overload_redis_url=url)).acquire()
        assert "\n" not in str(caught.value)


def test_an_absent_server_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot connect to the server at 127\.0\.0\.1:1: "):
        EmbeddedStore(tmp_path, load_settings(overload_redis_url="redis://user:hidden@127.0.0.1:1/0")).acquire()


def test_password_and_database_of_the_url_are_used_and_a_restarted_server_is_found_again(tmp_path: Path) -> None:
    options = ["--requirepass", "p@ss", "--appendonly", "yes", "--appendfsync", "always"]
    with own_server(tmp_path / "own", *options) as url:
        signed_in = url.replace("unix://", "unix://:p%40ss@") + "?db=3"
        with standalone_store(tmp_path / "data", OVERLOAD_REDIS_URL=signed_in) as rest:
            rest.run("SET", "k", "v")
            assert "db3" in rest.run("INFO", "keyspace")
            (server,) = servers_of(tmp_path / "own")
            server.terminate()
            with contextlib.suppress(Exception):
                server.wait(5)
            with own_server(tmp_path / "own", *options):
                wait_until(
                    "the gateway is connected again", lambda: rest.post("/", ["GET", "k"]).body == {"result": "v"}
                )


@pytest.mark.parametrize(
    "url", ["http://host", "redis://host:port", "redis://host/db", "unix://", "rediss://host/x", "redis://a..b"]
)
def test_a_url_of_another_kind_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must look like"):
        ExternalServer(url)


def test_an_external_server_hides_its_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    sound, malformed = "redis://me:s3cret@example.org:7000/2", "redis://me:s3cret@example.org:port/2"
    server = ExternalServer(sound)
    assert (server.host, server.port, server.user, server.database) == ("example.org", 7000, "me", 2)
    shown = [repr(server), str(server), server.name, repr(vars(server))]

    with own_server(tmp_path / "own", "--requirepass", "right") as url, no_process_left_in(tmp_path / "data"):
        settings = load_settings(overload_redis_url=url.replace("unix://", "unix://:s3cret@"))
        store = EmbeddedStore(tmp_path / "data", settings)
        with pytest.raises(ConfigurationError, match="WRONGPASS") as refused:
            store.acquire()
    with pytest.raises(ConfigurationError, match="must look like") as unread:
        ExternalServer(malformed)
    for caught in (refused, unread):
        shown += [repr(caught.value), str(caught.value), "".join(traceback.format_exception(caught.value))]
    shown += [repr(settings), str(settings), repr(vars(store)), caplog.text]
    shown += [(tmp_path / "data" / "store.log").read_text()]

    assert not [text for text in shown if "s3cret" in text]


# --- another server than the configured one ---------------------------------------------------------------------------


def test_a_running_store_with_another_server_is_refused_in_one_line_without_secrets(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with own_server(tmp_path / "one") as one, own_server(tmp_path / "two") as two, no_process_left_in(data_dir):
        for running, wanted in ((None, two), (one, two)):
            other = load_settings(overload_redis_url=wanted.replace("unix://", "unix://:s3cret@"))
            with EmbeddedStore(data_dir, load_settings(overload_redis_url=running)) as first:
                with pytest.raises(
                    ConfigurationError, match=f"OVERLOAD_REDIS_URL is {wanted}, but the store"
                ) as caught:
                    EmbeddedStore(data_dir, other).acquire()
                assert f"uses {running or 'its own server'}: " in str(caught.value)
                assert "\n" not in str(caught.value)
                assert "s3cret" not in str(caught.value) + (data_dir / "state.json").read_text()
                assert Rest.to((first.acquire(), None)).run("PING") == "PONG"
            wait_until("the store ended", lambda: not (data_dir / "state.json").exists())
        with EmbeddedStore(data_dir, load_settings(overload_redis_url=two)), EmbeddedStore(data_dir, other) as same:
            assert Rest.to((same.acquire(), None)).run("PING") == "PONG"


def test_a_store_that_is_started_again_in_front_of_another_server_gets_no_writes_of_earlier_users(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    with own_server(tmp_path / "own") as url, no_process_left_in(data_dir):
        with EmbeddedStore(data_dir, load_settings()) as first:
            kill(gateway_pid(data_dir))
            with EmbeddedStore(data_dir, load_settings(overload_redis_url=url)):
                with pytest.raises(StoreUnavailableError, match="started again in front of another server"):
                    first.refresh()


def test_a_user_without_a_url_shares_the_server_of_a_standalone_store_and_starts_no_other(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with own_server(tmp_path / "own") as url, no_process_left_in(data_dir):
        standalone = start_standalone(data_dir, OVERLOAD_REDIS_URL=url)
        read_connection_lines(standalone)
        with EmbeddedStore(data_dir, load_settings()) as user:
            Rest.to((user.acquire(), None)).run("SET", "k", "v")
            stop(standalone)
            with pytest.raises(StoreUnavailableError, match=r"the standalone store on .* has ended: start it again"):
                user.refresh()
            with standalone_store(data_dir, OVERLOAD_REDIS_URL=url):
                assert Rest.to((user.refresh(), None)).run("GET", "k") == "v"


def test_reset_empties_no_server_of_a_standalone_store(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with own_server(tmp_path / "own") as url, standalone_store(data_dir, OVERLOAD_REDIS_URL=url) as rest:
        rest.run("SET", "k", "v")
        command, environment = [sys.executable, "-m", "overload_demo", "reset", "--yes"], {"OVERLOAD_REDIS_URL": ""}
        done = subprocess.run(
            command, env=os.environ | environment | {"OVERLOAD_DATA_DIR": str(data_dir)}, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "reset empties the embedded store only" in " ".join(done.stderr.split())
        assert rest.run("GET", "k") == "v"


# --- a server that changes --------------------------------------------------------------------------------------------


def test_new_users_get_the_durability_of_a_server_that_has_come_back_with_another_one(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        url = first.enter_context(own_server(tmp_path / "own", "--appendonly", "yes", "--appendfsync", "always"))
        stack.enter_context(standalone_store(data_dir, OVERLOAD_REDIS_URL=url))
        with EmbeddedStore(data_dir, load_settings()) as user:
            assert user.acquire().durability == "always"
        first.close()
        (tmp_path / "own" / "own.sock").unlink(missing_ok=True)
        with own_server(tmp_path / "own", "--appendonly", "no"):

            def published() -> str:
                state = DataDir(data_dir).read_state()
                return state.durability if state else ""

            wait_until("the weaker durability is published", lambda: published() == "none")
            with EmbeddedStore(data_dir, load_settings(overload_redis_url=url)) as user:
                assert user.acquire().durability == "none"


def test_a_transaction_of_a_user_without_the_right_to_one_has_an_unknown_outcome(tmp_path: Path) -> None:
    rights = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-multi"]
    with own_server(tmp_path / "own", *rights) as url:
        with standalone_store(tmp_path / "data", OVERLOAD_REDIS_URL=url) as rest:
            reply = rest.post("/multi-exec", [["SET", "k", "1"], ["INCR", "k"]])
            assert reply.status == 503
            assert "without a transaction: NOPERM" in reply.body["error"]
            assert "the outcome is unknown" in reply.body["error"]
            assert rest.run("GET", "k") == "2"
