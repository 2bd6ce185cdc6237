"""The locks and the state file of a data directory."""

import threading
from pathlib import Path

from overload_demo.store.data_dir import DataDir, FileLock, State
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
