"""The store starts with its first user, ends with its last one, and reports in one line why it cannot start."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.process import ENOUGH_DESCRIPTORS
from overload_demo.rest import Address
from overload_demo.store.connect import EmbeddedStore
from overload_demo.store.redis_server import find_server
from tests.http.test_front_door import low_descriptor_limit
from tests.support.cases import plain_first
from tests.support.commands import run_module
from tests.support.stores import (
    Rest,
    User,
    gateway_pid,
    no_process_left_in,
    processes_of,
    read_connection_lines,
    servers_of,
    standalone_store,
    start_standalone,
    stop,
    token_file,
    wait_until_no_process_in,
)
from tests.support.waiting import wait_until


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    with no_process_left_in(tmp_path / "data") as path:
        yield path


def client(address: Address) -> Rest:
    return Rest(address.url, address.token.get_secret_value())


def refusal(data_dir: Path, *options: str, **environment: str) -> str:
    """The one line of a standalone store that refuses to start."""
    arguments = ["--data-dir", str(data_dir), "--port", "0", *options]
    refused = run_module("overload_demo.store", *arguments, env=os.environ | environment)
    assert refused.returncode == 1, refused.stderr
    (line,) = refused.stderr.splitlines()
    return line


def test_the_data_outlives_the_store(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()) as store:
        client(store.acquire()).run("SET", "k", "v")
    wait_until_no_process_in(data_dir)
    assert not (data_dir / "state.json").exists()
    with EmbeddedStore(data_dir, load_settings()) as store:
        assert client(store.acquire()).run("GET", "k") == "v"


def test_the_store_stays_until_the_last_user_has_released_it_or_died(data_dir: Path) -> None:
    first, second = User(data_dir), User(data_dir)
    token = first.token()
    assert second.token() == token
    first.leave()
    with EmbeddedStore(data_dir, load_settings()) as third:
        assert third.acquire().token.get_secret_value() == token
        second.kill()
        assert client(third.refresh()).run("PING") == "PONG"
    wait_until_no_process_in(data_dir)


def test_a_refresh_after_the_release_starts_no_store(data_dir: Path) -> None:
    store = EmbeddedStore(data_dir, load_settings())
    store.acquire()
    store.release()
    wait_until_no_process_in(data_dir)

    with pytest.raises(StoreUnavailableError, match="was released"):
        store.refresh()

    assert servers_of(data_dir) == []


def test_the_store_of_a_killed_user_ends(data_dir: Path) -> None:
    user = User(data_dir)
    assert user.token()
    user.kill()
    wait_until_no_process_in(data_dir)


@pytest.mark.exhaustive
def test_users_in_quick_succession_never_get_a_store_that_is_ending(data_dir: Path) -> None:
    for _ in range(4):
        with EmbeddedStore(data_dir, load_settings()) as store:
            assert client(store.acquire()).run("RPUSH", "visits", 1) > 0
        wait_until("it is about to end", lambda: not (data_dir / "state.json").exists())
    with EmbeddedStore(data_dir, load_settings()) as store:
        assert client(store.acquire()).run("LLEN", "visits") == 4


def test_a_store_can_be_acquired_and_released_twice(data_dir: Path) -> None:
    store = EmbeddedStore(data_dir, load_settings())
    assert store.acquire() == store.acquire()
    store.release()
    store.release()


def test_the_address_has_the_durability_and_hides_the_token(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()) as store:
        address = store.acquire()
        assert address.durability == "always"
        assert address.token.get_secret_value() not in repr(address)


def test_a_store_durable_each_second_warns_users_configured_for_always(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedStore(data_dir, load_settings(overload_durability="everysec")) as store:
        assert store.acquire().durability == "everysec"
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(str(data_dir / "redis.sock"))
            server.sendall(b"CONFIG GET appendfsync\r\n")
            assert b"everysec" in server.recv(1000)
        assert not caplog.records
        with EmbeddedStore(data_dir, load_settings()) as other:
            assert other.acquire().durability == "everysec"
        assert "OVERLOAD_DURABILITY is always, but the running store has everysec" in caplog.text


def test_only_the_owner_can_read_the_files_and_no_command_line_holds_the_token(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()) as store:
        token = store.acquire().token.get_secret_value()
        assert data_dir.stat().st_mode & 0o777 == 0o700
        for file in data_dir.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file.name
        assert len(processes_of(data_dir)) == 2
        for process in processes_of(data_dir):
            assert token not in " ".join(process.cmdline())
    wait_until_no_process_in(data_dir)
    assert token not in (data_dir / "store.log").read_text()


def test_proxies_and_upstash_variables_of_the_environment_are_ignored(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings()
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("UPSTASH_REDIS_REST_URL", "https://alone.example")
    with EmbeddedStore(data_dir, settings) as store:
        assert client(store.acquire()).run("PING") == "PONG"


def test_a_data_directory_with_a_very_long_path_works(tmp_path: Path) -> None:
    long = tmp_path / ("a" * 100) / ("b" * 100)
    with no_process_left_in(long), EmbeddedStore(long, load_settings()) as store:
        assert client(store.acquire()).run("SET", "k", "v") == "OK"
        assert len(servers_of(long)) == 1


def test_requests_are_never_logged(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()) as store:
        client(store.acquire()).run("SET", "job", "personal data")
    wait_until_no_process_in(data_dir)
    assert "personal data" not in (data_dir / "store.log").read_text()


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_data_directory_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below", Path("/proc/nowhere")):
        with pytest.raises(ConfigurationError, match="cannot use the data directory") as caught:
            EmbeddedStore(path, load_settings()).acquire()
        assert "\n" not in str(caught.value)
        assert refusal(path).startswith("error: cannot use the data directory")


def test_a_server_binary_that_cannot_run_is_one_line(data_dir: Path, tmp_path: Path) -> None:
    text, script = tmp_path / "text", tmp_path / "script"
    text.write_text("no program")
    script.write_text("#!/bin/sh\necho hello\n")
    script.chmod(0o700)
    for path, problem in (
        (tmp_path / "absent", "does not exist"),
        (text, "is not executable"),
        (script, "is no Redis or Valkey server"),
    ):
        settings = load_settings(overload_redis_server=path)
        with pytest.raises(ConfigurationError, match=problem):
            EmbeddedStore(data_dir, settings).acquire()
        assert problem in refusal(data_dir, OVERLOAD_REDIS_SERVER=str(path))


def test_a_server_ended_by_a_signal_without_a_name_is_one_line(data_dir: Path, tmp_path: Path) -> None:
    binary = tmp_path / "server"
    binary.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec "{find_server(None)}" --version\nkill -40 $$\n')
    binary.chmod(0o700)
    settings = load_settings(overload_redis_server=binary)
    with pytest.raises(ConfigurationError, match=r"the server ended \(signal 40\)"):
        EmbeddedStore(data_dir, settings).acquire()


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of another process can be set on Linux only")
def test_a_gateway_raises_its_descriptor_limit_and_outlives_running_out_of_descriptors(data_dir: Path) -> None:
    with low_descriptor_limit(256), EmbeddedStore(data_dir, load_settings()) as store, ExitStack() as stack:
        address, gateway = store.acquire(), psutil.Process(gateway_pid(data_dir))
        soft, hard = gateway.rlimit(psutil.RLIMIT_NOFILE)
        assert soft == min(hard, ENOUGH_DESCRIPTORS)
        gateway.rlimit(psutil.RLIMIT_NOFILE, (64, hard))

        def connect_once_more() -> bool:
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(address.socket)
            return gateway.num_fds() >= 64

        wait_until("the gateway has no descriptor left", connect_once_more)
        threading.Event().wait(1.0)  # several looks for the last user, and one at the files
        assert gateway.is_running()
        stack.close()

        def serves() -> bool:
            with suppress(OSError, http.client.HTTPException):  # a connection that it could not accept
                return client(address).post("/", ["PING"]).status == 200
            return False

        wait_until("it serves again", serves)
    wait_until_no_process_in(data_dir)


def test_a_configured_server_binary_is_used(data_dir: Path, tmp_path: Path) -> None:
    own = tmp_path / "my-valkey-server"
    shutil.copy(find_server(None), own)
    with EmbeddedStore(data_dir, load_settings(overload_redis_server=own)):
        (server,) = servers_of(data_dir)
        assert server.exe() == str(own)


@pytest.mark.parametrize("user_value", plain_first(["", "glibc.malloc.tcache_count=9"]))
def test_the_server_reuses_many_freed_blocks_unless_the_user_tunes_glibc(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, user_value: str
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if user_value:
        monkeypatch.setenv("GLIBC_TUNABLES", user_value)
    with EmbeddedStore(data_dir, load_settings()):
        (server,) = servers_of(data_dir)
        tunables = server.environ()["GLIBC_TUNABLES"]

    first, *_ = tunables.split(":")  # glibc cuts the text in the server's memory at each colon
    assert first == (user_value or "glibc.malloc.tcache_count=4000")


def test_damaged_data_is_one_line(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()) as store:
        for number in range(10):
            client(store.acquire()).run("SET", f"k{number}", "x" * 100)
    wait_until_no_process_in(data_dir)
    (log,) = [*data_dir.glob("appendonlydir/*.incr.aof"), *data_dir.glob("appendonly.aof")]  # the latter before 7.0
    log.write_bytes(b"damaged\r\n" + log.read_bytes())
    with pytest.raises(ConfigurationError, match="damaged at byte 0, with commands behind it"):
        EmbeddedStore(data_dir, load_settings()).acquire()
    assert "damaged at byte 0" in refusal(data_dir)


def test_a_taken_port_is_one_line(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert refusal(data_dir, "--port", port) == f"error: cannot listen on 127.0.0.1 port {port}: the port is taken"


def test_a_second_store_on_the_same_data_is_refused_in_one_line(data_dir: Path) -> None:
    with standalone_store(data_dir) as rest:
        assert refusal(data_dir) == f"error: another store is already running on {data_dir}"
        assert rest.run("PING") == "PONG"
        with EmbeddedStore(data_dir, load_settings()) as store:
            assert store.acquire().token.get_secret_value() == rest.token, "a user takes the store that is there"


@pytest.mark.parametrize("options", [["--port", "70000"], ["--token", "secret"], ["--port", "x"]], ids=repr)
def test_a_usage_error_exits_with_2(data_dir: Path, options: list[str]) -> None:
    assert run_module("overload_demo.store", "--data-dir", str(data_dir), *options).returncode == 2


# --- the standalone store ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", plain_first([signal.SIGTERM, signal.SIGINT]), ids=lambda number: number.name)
def test_a_standalone_store_ends_its_server_and_exits_0(data_dir: Path, number: signal.Signals) -> None:
    started = start_standalone(data_dir)
    rest = read_connection_lines(started)
    idle = http.client.HTTPConnection(rest.url.removeprefix("http://"))
    idle.request("GET", "/ping", headers={"Authorization": f"Bearer {rest.token}"})
    idle.getresponse().read()
    code, _ = stop(started, number)
    idle.close()
    assert code == 0
    assert not processes_of(data_dir)
    assert not (data_dir / "state.json").exists()


def test_a_standalone_store_outlives_its_users_and_ignores_upstash(data_dir: Path) -> None:
    with standalone_store(data_dir, UPSTASH_REDIS_REST_URL="https://alone.example") as rest:
        with EmbeddedStore(data_dir, load_settings()) as store:
            assert store.acquire().token.get_secret_value() == rest.token
        pid = gateway_pid(data_dir)
        with EmbeddedStore(data_dir, load_settings()) as store:
            assert store.acquire().token.get_secret_value() == rest.token
        assert gateway_pid(data_dir) == pid


def test_each_store_has_a_token_of_its_own_unless_a_file_holds_one(data_dir: Path, tmp_path: Path) -> None:
    tokens = set()
    for _ in range(2):
        with standalone_store(data_dir) as rest:
            tokens.add(rest.token)
            assert rest.token in (data_dir / "state.json").read_text()
    assert len(tokens) == 2
    with standalone_store(data_dir, "--token-file", str(token_file(tmp_path / "token", "another\n"))) as rest:
        assert rest.token == "another"
        assert "another" not in " ".join(psutil.Process(gateway_pid(data_dir)).cmdline())
    assert not any(token in file.read_text(errors="replace") for file in data_dir.glob("*.*") for token in tokens)
    assert "must hold one word" in refusal(data_dir, "--token-file", str(token_file(tmp_path / "two", "two words")))
    assert "cannot read" in refusal(data_dir, "--read-only-token-file", str(tmp_path / "absent"))


def test_help_names_units_and_defaults() -> None:
    command = [sys.executable, "-m", "overload_demo.store", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"}).stdout
    for expected in ("--host", "127.0.0.1", "--port", "--token-file", "--data-dir", "OVERLOAD_DATA_DIR"):
        assert expected in text
    assert "--until-unused" not in text
