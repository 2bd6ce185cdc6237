"""A damaged append-only file: an incomplete end is dropped and reported, other damage is dropped on demand only."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from valkey import Valkey

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.store.connect import EmbeddedStore
from tests.support.cases import plain_first
from tests.support.stores import (
    Rest,
    no_process_left_in,
    standalone_store,
    start_standalone,
    wait_until_no_process_in,
)
from tests.support.waiting import wait_until

KEYS = 60
ALL = {f"key{number:02}" for number in range(KEYS)} | {"first", "second"}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with 60 keys, one command each; the 21st value has 21,000 bytes; then a transaction."""
    path = tmp_path_factory.mktemp("sound")
    with standalone_store(path) as rest:
        for number in range(KEYS):
            rest.run("SET", f"key{number:02}", "x" * (21_000 if number == 20 else 150))
        rest.post("/multi-exec", [["INCR", "first"], ["INCR", "second"]])
    return path


@pytest.fixture
def data_dir(sound: Path, tmp_path: Path) -> Iterator[Path]:
    with no_process_left_in(tmp_path / "data") as path:
        shutil.copytree(sound, path)
        yield path


def log_of(data_dir: Path) -> Path:
    [path] = data_dir.glob("appendonlydir/*.incr.aof")
    return path


def damage(data_dir: Path, old: bytes, new: bytes) -> bytes:
    """Replace the first ``old`` in the file; returns what the file holds then."""
    data = log_of(data_dir).read_bytes()
    assert old in data
    log_of(data_dir).write_bytes(data.replace(old, new, 1))
    return log_of(data_dir).read_bytes()


def rest_of(store: EmbeddedStore) -> Rest:
    address = store.acquire()
    return Rest(address.url, address.token.get_secret_value())


def refusal(data_dir: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedStore(data_dir, load_settings()).acquire()
    wait_until_no_process_in(data_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def repair(data_dir: Path) -> str:
    done = start_standalone(data_dir, "--repair")
    output, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    return output


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    plain_first(
        [
            (b"$21000\r\n", b"$61000\r\n", {"key20"}),
            (b"SET\r\n$5\r\nkey20", b"XET\r\n$5\r\nkey20", {"key20"}),
            (b"$5\r\nMULTI", b"$1\r\nMULTI", {"first", "second"}),
        ]
    ),
    ids=["a length", "a name", "the start of a transaction"],
)
def test_damage_with_commands_behind_it_is_dropped_only_on_demand_and_alone(
    data_dir: Path, old: bytes, new: bytes, lost: set[str]
) -> None:
    damaged = damage(data_dir, old, new)
    errors = [refusal(data_dir), refusal(data_dir)]
    assert errors[0] == errors[1]
    assert "damaged at byte" in errors[0]
    assert f"--repair --data-dir {data_dir}" in errors[0]
    assert log_of(data_dir).read_bytes() == damaged, "a refused file is not touched"
    [copy] = data_dir.glob("*.damaged-*")
    assert copy.read_bytes() == damaged
    report = repair(data_dir)
    assert f"{len(damaged) - log_of(data_dir).stat().st_size:,} bytes" in report
    assert str(copy) in report
    with EmbeddedStore(data_dir, load_settings()) as store:
        kept = set(rest_of(store).run("KEYS", "*"))
    assert kept == ALL - lost
    assert [*data_dir.glob("*.damaged-*")] == [copy]


@pytest.mark.parametrize(
    ("cut", "tail", "lost"),
    plain_first(
        [
            (0, b"*3\r\n$3\r\nSET\r\n$5\r\nkey60\r\n$150\r\nxx", set()),
            (0, bytes(4096), set()),
            (30, b"", {"first", "second"}),
        ]
    ),
    ids=["half a command", "zeros", "half a transaction"],
)
def test_an_incomplete_end_is_dropped_and_reported_and_a_copy_is_kept(
    data_dir: Path, caplog: pytest.LogCaptureFixture, cut: int, tail: bytes, lost: set[str]
) -> None:
    sound = log_of(data_dir).read_bytes()
    damaged = sound[: len(sound) - cut] + tail
    log_of(data_dir).write_bytes(damaged)
    with caplog.at_level(logging.WARNING), EmbeddedStore(data_dir, load_settings()) as store:
        assert set(rest_of(store).run("KEYS", "*")) == ALL - lost
    [line] = [record.getMessage() for record in caplog.records]
    assert f"{len(damaged) - log_of(data_dir).stat().st_size:,} bytes" in line
    [copy] = data_dir.glob("*.damaged-*")
    assert copy.read_bytes() == damaged
    assert str(copy) in line
    assert copy.stat().st_mode & 0o077 == 0


def test_the_standalone_store_reports_a_dropped_end_on_its_terminal(data_dir: Path) -> None:
    log_of(data_dir).write_bytes(log_of(data_dir).read_bytes() + b"*1\r\n$4\r\nPI")
    started = start_standalone(data_dir)
    try:
        wait_until("it serves", (data_dir / "state.json").exists)
    finally:
        started.terminate()
    _, errors = started.communicate(timeout=60)
    assert "dropped an incomplete command at the end, 10 bytes" in errors


def test_nothing_is_dropped_while_no_copy_can_be_kept(data_dir: Path) -> None:
    damaged = log_of(data_dir).read_bytes() + bytes(10)
    log_of(data_dir).write_bytes(damaged)
    changed = datetime.fromtimestamp(log_of(data_dir).stat().st_mtime, UTC)
    (data_dir / f"{log_of(data_dir).name}.damaged-{changed:%Y%m%dT%H%M%S.%f}.new").mkdir()  # in the way of the copy
    assert "cannot keep a copy" in refusal(data_dir)
    assert log_of(data_dir).read_bytes() == damaged


def snapshot_with_keys(data_dir: Path) -> bool:
    bases = list(data_dir.glob("appendonlydir/*.base.rdb"))
    with contextlib.suppress(FileNotFoundError):  # the server has just replaced it
        return len(bases) == 1 and b"key07" in bases[0].read_bytes()
    return False


def test_a_damaged_snapshot_is_refused_with_the_servers_reason(data_dir: Path) -> None:
    with EmbeddedStore(data_dir, load_settings()) as store:
        store.acquire()
        with Valkey(unix_socket_path=str(data_dir / "redis.sock")) as server:
            for name, value in {"min-size": 1, "percentage": 1}.items():  # BGREWRITEAOF is not to be had
                server.config_set(f"auto-aof-rewrite-{name}", value)
            wait_until("the snapshot is written", lambda: snapshot_with_keys(data_dir))
    wait_until_no_process_in(data_dir)
    [base] = data_dir.glob("appendonlydir/*.base.rdb")
    data = bytearray(base.read_bytes())
    data[data.index(b"key07")] ^= 1
    base.write_bytes(data)
    assert "checksum" in refusal(data_dir).lower()
    assert base.read_bytes() == data


def test_sound_data_needs_no_repair(data_dir: Path) -> None:
    before = log_of(data_dir).read_bytes()
    assert "nothing is dropped" in repair(data_dir)
    assert log_of(data_dir).read_bytes() == before
    assert not [*data_dir.glob("*.damaged-*")]
