"""``OVERLOAD_REDIS_URL``: the gateway in front of a running server, refused when jobs are not safe there."""

import contextlib
import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.store.connect import EmbeddedStore
from overload_demo.store.gateway.backing_server import ExternalServer
from overload_demo.store.redis_server import find_server
from tests.support.cases import plain_first
from tests.support.stores import Rest, no_process_left_in, servers_of, standalone_store
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


@pytest.mark.parametrize("url", ["http://host", "redis://host:port", "redis://host/db", "unix://", "rediss://host/x"])
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
