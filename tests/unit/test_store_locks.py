"""The locks and the state file of a data directory."""

import os
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from overload_demo.store.data_dir import DataDir, FileLock, State, without_secrets
from overload_demo.store.gateway.endpoint import Tokens


def test_an_exclusive_lock_excludes_and_shared_ones_share(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second, alone = FileLock(path), FileLock(path), FileLock(path)
    assert first.take(shared=True)
    assert second.take(shared=True)
    assert not alone.take()
    assert not alone.is_free()
    first.release()
    second.release()
    assert alone.take()
    assert not first.take(shared=True)
    alone.release()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    held, wanted = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert held.take()
    threading.Timer(0.05, held.release).start()
    assert wanted.take(timeout_s=5)
    wanted.release()


def test_a_lock_file_that_is_removed_while_it_is_waited_for_is_not_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held, wanted = FileLock(path), FileLock(path)
    assert held.take()

    def remove_and_release() -> None:
        path.unlink()
        held.release()

    threading.Timer(0.05, remove_and_release).start()
    assert wanted.take(timeout_s=5)
    assert os.path.samestat(os.fstat(wanted.descriptor), path.stat())
    assert not FileLock(path).take()
    wanted.release()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:s3c@ret@host:7000/2", "redis://host:7000/2"),
        ("unix:///run/redis.sock?db=3&password=s3cret", "unix:///run/redis.sock?db=3&"),
        ("rediss+cluster://me:s3cret@a:1,b:2?shards=3", "rediss+cluster://a:1,b:2?shards=3"),
        ("redis+sentinel://:s3cret@a,b/jobs/2?sentinel_password=s3cret", "redis+sentinel://a,b/jobs/2?"),
        ("redis://me:s3/cr?et@host", "redis://host"),
        ("unix://me:s3cret@/run/redis@1.sock?password=s@3", "unix:///run/redis@1.sock?"),
    ],
)
def test_a_url_without_secrets_still_names_the_server(url: str, shown: str) -> None:
    assert without_secrets(SecretStr(url)) == shown
    assert without_secrets(None) == ""


def test_the_state_is_private_and_invalid_files_are_no_state(tmp_path: Path) -> None:
    directory = DataDir(tmp_path)
    state = State("secret", 1, "always")
    assert directory.read_state() is None
    directory.write_state(state)
    assert directory.read_state() == state
    assert "secret" not in repr(state)
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    tokens, others = Tokens(), Tokens()
    assert len({tokens.standard, tokens.read_only, others.standard, others.read_only}) == 4
    assert tokens.standard not in repr(tokens)
    assert tokens.read_only not in repr(tokens)
    for nonsense in ("", "{", "[]", '{"url": 1}'):
        (tmp_path / "state.json").write_text(nonsense)
        assert directory.read_state() is None
