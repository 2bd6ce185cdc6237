"""No token and no job reaches another user: not over a listener, and not through planted files or links."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.rest.loopback import connect
from overload_demo.store.connect import EmbeddedStore
from tests.support.running import make_settings, serving_api, submit
from tests.support.stores import (
    Rest,
    gateway_pid,
    kill,
    no_process_left_in,
    standalone_store,
    start_standalone,
)

OTHER_USER = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    with no_process_left_in(tmp_path / "data") as path:
        yield path


def refusal(data_dir: Path) -> str:
    """The error line, equal for both ways to start a store."""
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedStore(data_dir, load_settings()).acquire()
    started = start_standalone(data_dir)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 1
    assert errors == f"error: {caught.value}\n"
    return str(caught.value)


# --- listeners --------------------------------------------------------------------------------------------------------


def test_an_embedded_store_opens_no_port(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()):
        gateway = psutil.Process(gateway_pid(data_dir))
        for process in (gateway, *gateway.children()):
            assert process.net_connections("inet") == []
        assert (data_dir / "gateway.sock").stat().st_mode & 0o777 == 0o600


def test_a_port_and_a_state_of_an_earlier_run_get_no_token_and_no_job(tmp_path: Path, data_dir: Path) -> None:
    settings = make_settings(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as fake:
        fake.settimeout(0)
        data_dir.mkdir(mode=0o700)
        left = {
            "url": f"http://127.0.0.1:{fake.getsockname()[1]}",
            "token": "old",
            "pid": 1,
            "durability": "always",
        }
        (data_dir / "state.json").write_text(json.dumps(left))
        with EmbeddedStore(data_dir, settings) as store:
            address = store.acquire()
            with serving_api(settings, (address, store.refresh)) as client:
                submit(client)
                kill(gateway_pid(data_dir))
                [accepted] = submit(client)
                assert client.get(f"/jobs/{accepted}").status_code == 200
            assert store.acquire().token not in {address.token, "old"}
            stale = Rest(address.url, address.token.get_secret_value())
            assert stale.send("GET", "/ping").status == 401, "the token of the killed gateway is worthless"
        with pytest.raises(BlockingIOError):
            fake.accept()


@needs_root
def test_a_listener_of_another_user_is_sent_nothing(data_dir: Path) -> None:
    data_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as fake:
        fake.bind(str(data_dir / "gateway.sock"))
        os.seteuid(OTHER_USER)  # the kernel records the user at listen
        try:
            fake.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(PermissionError, match=f"served by user {OTHER_USER}"):
            connect(str(data_dir / "gateway.sock"))
        with fake.accept()[0] as link:
            assert link.recv(1000) == b"", "closed, and nothing was sent before"


# --- the data directory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o1702])
def test_a_directory_that_others_can_write_is_refused_with_the_remedy(data_dir: Path, mode: int) -> None:
    data_dir.mkdir()
    data_dir.chmod(mode)
    assert refusal(data_dir).endswith(f"chmod 700 {data_dir}")
    assert not [*data_dir.iterdir()], "nothing was written into it"


def test_a_directory_that_others_can_read_is_accepted(data_dir: Path) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o755)
    with EmbeddedStore(data_dir, load_settings()) as store:
        assert store.acquire()
        assert all(file.stat().st_mode & 0o077 == 0 for file in data_dir.iterdir())


@needs_root
def test_a_directory_of_another_user_is_refused(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, OTHER_USER, OTHER_USER)
    assert f"belongs to user {OTHER_USER}" in refusal(data_dir)


@needs_root
def test_another_users_link_for_the_directory_is_refused(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "precious").mkdir(mode=0o700)
    data_dir.symlink_to(tmp_path / "precious")
    os.lchown(data_dir, OTHER_USER, OTHER_USER)
    assert f"belongs to user {OTHER_USER}" in refusal(data_dir)
    assert not [*(tmp_path / "precious").iterdir()]


def test_the_users_own_link_for_the_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "disk").mkdir(mode=0o700)
    with no_process_left_in(tmp_path / "disk"), EmbeddedStore(tmp_path / "data", load_settings()) as store:
        assert store.acquire() == store.refresh()


@pytest.mark.parametrize("name", ["users.lock", "redis.lock", "store.log"])
def test_a_planted_link_is_refused_and_its_target_untouched(tmp_path: Path, data_dir: Path, name: str) -> None:
    (tmp_path / "precious").write_text("of another")
    data_dir.mkdir(mode=0o700)
    (data_dir / name).symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigurationError, match=f"{name} is a symbolic link"):
        EmbeddedStore(data_dir, load_settings()).acquire()
    assert (tmp_path / "precious").read_text() == "of another"


def test_planted_files_that_are_replaced_reach_no_target_and_no_planted_token_counts(
    tmp_path: Path, data_dir: Path
) -> None:
    (tmp_path / "precious").write_text("of another")
    data_dir.mkdir(mode=0o700)
    for name in ("state.json", "state.json.new", "gateway.sock", "redis.sock", "token.new"):
        (data_dir / name).symlink_to(tmp_path / "precious")
    for name in ("token", "read_only_token"):
        (data_dir / name).write_text("known-to-others")
    with standalone_store(data_dir) as rest:
        assert rest.run("PING") == "PONG"
        assert "known-to-others" not in {rest.token, rest.read_only_token}
        assert not (data_dir / "token").exists()
    assert (tmp_path / "precious").read_text() == "of another"


def test_planted_data_is_refused(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "foreign").mkdir()
    data_dir.mkdir(mode=0o700)
    (data_dir / "appendonlydir").symlink_to(tmp_path / "foreign")
    assert "appendonlydir is a symbolic link" in refusal(data_dir)
    (data_dir / "appendonlydir").unlink()
    (data_dir / "appendonlydir").mkdir(mode=0o700)
    (data_dir / "appendonlydir" / "appendonly.aof.1.incr.aof").symlink_to(tmp_path / "precious")
    assert "incr.aof is a symbolic link" in refusal(data_dir)
    assert not (tmp_path / "precious").exists()
