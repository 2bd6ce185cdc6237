"""The next stack removes the data, with its tokens, of stacks whose processes were all killed."""

import os
import time
from pathlib import Path

from overload_demo.lab.parts import remove_abandoned
from overload_demo.store.data_dir import TEMPORARY, DataDir


def store(runs: Path, name: str, *, age_s: float = 3600.0) -> DataDir:
    data_dir = DataDir(runs / name / "store-1")
    data_dir.mark_temporary()
    (data_dir.path / "state.json").touch()
    begun = time.time() - age_s
    os.utime(data_dir.path / TEMPORARY, (begun, begun))
    return data_dir


def test_only_data_without_a_user_is_removed(tmp_path: Path) -> None:
    abandoned, starting, used = (
        store(tmp_path, "abandoned"),
        store(tmp_path, "starting", age_s=5.0),
        store(tmp_path, "used"),
    )
    of_a_user = tmp_path / "own" / "store-1"
    DataDir(of_a_user).prepare()
    with_server = store(tmp_path, "with-server")
    users, server = used.lock("users"), with_server.lock("redis")
    assert users.take(shared=True) and server.take()
    try:
        remove_abandoned(tmp_path)
    finally:
        users.release()
        server.release()

    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/store-*"))
    assert left == ["own/store-1", "starting/store-1", "used/store-1", "with-server/store-1"]
    assert not abandoned.path.exists() and starting.path.exists()
    remove_abandoned(tmp_path)
    assert (used.path.exists(), with_server.path.exists(), of_a_user.exists()) == (False, False, True)
