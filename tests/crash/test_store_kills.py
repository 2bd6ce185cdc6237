"""After any kill there is one server per data directory, and no acknowledged write is lost."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from overload_demo.config import load_settings
from overload_demo.errors import StoreUnavailableError
from overload_demo.rest.client import Upstash
from overload_demo.store import connect
from overload_demo.store.connect import EmbeddedStore
from overload_demo.store.data_dir import DataDir
from overload_demo.store.redis_server import find_server
from tests.support.cases import plain_first
from tests.support.stores import (
    Rest,
    User,
    gateway_pid,
    kill,
    kill_all,
    no_process_left_in,
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


class Writer(threading.Thread):
    """Pushes 0, 1, 2 ... one by one, records the acknowledged ones, and refreshes the address after a failure."""

    def __init__(self, store: EmbeddedStore) -> None:
        super().__init__()
        self._store, self._stop_asked = store, threading.Event()
        self.acknowledged: list[str] = []
        self.unknown = 0

    def run(self) -> None:
        address, number = self._store.acquire(), 0
        while not self._stop_asked.is_set():
            rest = Rest(address.url, address.token.get_secret_value())
            try:
                if rest.post("/", ["RPUSH", "numbers", number]).status == 200:
                    self.acknowledged.append(str(number))
                else:
                    self.unknown += 1
            except (OSError, HTTPException):  # cut off, or refused
                self.unknown += 1
                address = self._store.refresh()
            number += 1

    def has_written(self, more: int) -> Callable[[], bool]:
        goal = len(self.acknowledged) + more
        return lambda: len(self.acknowledged) >= goal

    def finish(self) -> None:
        self._stop_asked.set()
        self.join(20)
        assert not self.is_alive()


def kill_gateway(data_dir: Path) -> None:
    kill(gateway_pid(data_dir))


def kill_server(data_dir: Path) -> None:
    for server in servers_of(data_dir):
        server.kill()


def kill_both(data_dir: Path) -> None:
    kill_all(data_dir)


@pytest.mark.parametrize(
    "kill_some", plain_first([kill_both, kill_gateway, kill_server]), ids=lambda function: function.__name__
)
def test_every_acknowledged_write_survives(data_dir: Path, kill_some: Callable[[Path], None]) -> None:
    with EmbeddedStore(data_dir, load_settings()) as store:
        writer = Writer(store)
        writer.start()
        try:
            for _ in range(3):
                wait_until("the writer writes", writer.has_written(50))
                before = {server.pid for server in servers_of(data_dir)}
                assert len(before) == 1
                kill_some(data_dir)
                wait_until("the writer writes again", writer.has_written(50))
                after = {server.pid for server in servers_of(data_dir)}
                assert len(after) == 1
                assert after != before
        finally:
            writer.finish()
        address = store.refresh()
        stored = Rest(address.url, address.token.get_secret_value()).run("LRANGE", "numbers", 0, -1)
        assert set(writer.acknowledged) <= set(stored)
        assert len(stored) <= len(writer.acknowledged) + writer.unknown, "nothing was pushed twice"
        assert stored == sorted(stored, key=int)


def test_a_dead_server_is_started_again_and_a_waiting_request_succeeds(data_dir: Path) -> None:
    def is_answered_after_a_kill() -> bool:
        """Send one request, which waits for the new server; one with too little CPU may take longer than it waits."""
        [server] = servers_of(data_dir)
        server.kill()
        server.wait(10)
        answered = rest.post("/", ["GET", "k"]).body == {"result": "v"}
        wait_until("another server runs", lambda: [one.pid for one in servers_of(data_dir)] not in ([], [server.pid]))
        return answered

    with standalone_store(data_dir) as rest:
        rest.run("SET", "k", "v")
        wait_until("a waiting request succeeds", is_answered_after_a_kill, timeout_s=60.0)


def test_a_request_in_flight_at_the_servers_death_is_a_503_with_an_unknown_outcome(data_dir: Path) -> None:
    with standalone_store(data_dir) as rest:
        (server,) = servers_of(data_dir)
        replies = []
        endless = ["EVAL", "redis.call('SET', 'began', 1) while true do end", 0]
        thread = threading.Thread(target=lambda: replies.append(rest.post("/", endless)))
        used_before = server.cpu_times().user
        thread.start()
        wait_until("the script runs", lambda: server.cpu_times().user > used_before + 0.2)
        server.kill()
        thread.join(10)
        assert replies[0].status == 503
        assert "outcome is unknown" in replies[0].body["error"]


def test_without_a_server_requests_wait_two_seconds_for_a_503_that_did_nothing(data_dir: Path, tmp_path: Path) -> None:
    wrapper = tmp_path / "server"
    wrapper.write_text(f'#!/bin/sh\nexec {find_server(None)} "$@"\n')
    wrapper.chmod(0o700)
    with standalone_store(data_dir, OVERLOAD_REDIS_SERVER=str(wrapper)) as rest:
        wrapper.rename(tmp_path / "away")
        kill_server(data_dir)
        wait_until("the gateway reports it", lambda: "nothing was done" in str(rest.post("/", ["SET", "k", 1]).body))
        assert rest.send("GET", "/ping").status == 503
        (tmp_path / "away").rename(wrapper)
        wait_until("the store is back", lambda: rest.send("GET", "/ping").status == 200)
        assert rest.run("EXISTS", "k") == 0


@pytest.mark.exhaustive
def test_several_users_of_a_dead_gateway_start_one_store(data_dir: Path) -> None:
    users = [User(data_dir) for _ in range(4)]
    try:
        assert len({user.token() for user in users}) == 1, "four starting at once share one store"
        assert len(servers_of(data_dir)) == 1
        kill_gateway(data_dir)
        for user in users:
            user.request_refresh()
        assert len({user.token() for user in users}) == 1
        assert len(servers_of(data_dir)) == 1
    finally:
        for user in users:
            user.leave()


@pytest.mark.anyio
async def test_a_client_that_was_idle_while_another_user_replaced_the_gateway_gets_the_new_token(
    data_dir: Path,
) -> None:
    settings = load_settings(overload_data_dir=data_dir)
    with EmbeddedStore(data_dir, settings) as store, EmbeddedStore(data_dir, settings) as other:
        client = Upstash(store.acquire(), refresh=store.refresh)
        try:
            await client.command("SET", "k", "v")
            before = client.address.token
            kill_gateway(data_dir)
            await asyncio.to_thread(other.refresh)

            assert await client.command("GET", "k", repeatable=True) == "v"
            assert client.address.token != before
        finally:
            await client.aclose()


def test_an_orphaned_server_is_ended_before_another_is_started(data_dir: Path) -> None:
    directory = DataDir(data_dir)
    directory.prepare()
    lock = directory.lock("redis")
    assert lock.take()
    # The state after a killed gateway where the kernel does not end children: a server that holds the lock.
    options = ["--port", "0", "--unixsocket", "redis.sock", "--appendonly", "yes", "--save", ""]
    command = [str(find_server(None)), *options]
    orphan = subprocess.Popen(command, cwd=data_dir, pass_fds=[lock.descriptor], stdout=subprocess.DEVNULL)
    lock.release()
    reaper = threading.Thread(target=orphan.wait)
    reaper.start()
    wait_until("the orphan listens", (data_dir / "redis.sock").exists)
    with EmbeddedStore(data_dir, load_settings()):
        reaper.join(10)
        assert orphan.poll() is not None
        assert [server.pid for server in servers_of(data_dir)] != [orphan.pid]
        assert len(servers_of(data_dir)) == 1


def test_the_server_holds_its_lock_until_it_ends(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()):
        assert not DataDir(data_dir).lock("redis").is_free()
    wait_until_no_process_in(data_dir)
    assert DataDir(data_dir).lock("redis").is_free()


def test_a_stopped_server_that_outlives_its_gateway_is_killed_first(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()) as store:
        (stuck,) = servers_of(data_dir)
        stuck.suspend()  # a stopped server ends neither with its parent nor on SIGTERM
        kill_gateway(data_dir)
        address = store.refresh()
        (server,) = servers_of(data_dir)
        assert server.pid != stuck.pid
        assert Rest(address.url, address.token.get_secret_value()).run("PING") == "PONG"


def test_a_stopped_gateway_is_not_replaced(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.setattr(connect, "PING_TIMEOUT_S", 0.5)
    with EmbeddedStore(data_dir, load_settings()) as store:
        token, pid = store.acquire().token, gateway_pid(data_dir)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailableError, match="does not answer"):
                store.refresh()
        finally:
            monkeypatch.undo()
            os.kill(pid, signal.SIGCONT)
        assert gateway_pid(data_dir) == pid
        assert store.refresh().token == token
        assert len(servers_of(data_dir)) == 1


def test_a_standalone_store_restarts_on_the_same_port_right_after_kill_9(data_dir: Path, tmp_path: Path) -> None:
    chosen = "--token-file", str(token_file(tmp_path / "token", "secret"))
    first = start_standalone(data_dir, *chosen)
    rest = read_connection_lines(first)
    rest.run("SET", "k", "v")
    port = rest.url.rsplit(":", 1)[1]
    first.kill()
    second = start_standalone(data_dir, *chosen, "--port", port)
    first.communicate()
    try:
        again = read_connection_lines(second)
        assert again.url == rest.url
        assert again.run("GET", "k") == "v"
        assert len(servers_of(data_dir)) == 1
    finally:
        assert stop(second)[0] == 0


def test_a_user_killed_while_starting_the_store_leaves_nothing_behind(data_dir: Path) -> None:
    script = f"""
import os
from pathlib import Path
from overload_demo.config import load_settings
from overload_demo.store import connect
connect._answers = lambda address: os.kill(os.getpid(), 9)  # is killed just when the store is up
connect.EmbeddedStore(Path({str(data_dir)!r}), load_settings()).acquire()
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert (data_dir / "redis.lock").exists(), "it had been started"


def test_a_lock_is_free_again_after_a_start_of_the_server_without_descriptors(data_dir: Path) -> None:
    script = f"""
import os, resource
from pathlib import Path
from overload_demo.config import load_settings
from overload_demo.store.data_dir import DataDir
from overload_demo.store.redis_server import EmbeddedServer
directory = DataDir(Path({str(data_dir)!r}))
directory.prepare()
server = EmbeddedServer(directory, load_settings(), drop_damage=False)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 2, hard))  # room for the lock file, and for no other
try:
    server._claim()
except OSError as error:
    print(error.strerror)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
server._claim()
print("claimed")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split("\n") == ["Too many open files", "claimed", ""], done.stderr
