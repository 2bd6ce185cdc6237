"""Worker identity: unique to each run; only earlier holders of the same lock file and boot are proved dead."""

import shutil
from pathlib import Path

import pytest

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.worker import guards
from overload_demo.worker.guards import Identity, locked_identity
from tests.support.running import make_settings


def one_run(settings: Settings) -> Identity:
    with locked_identity(settings) as own:
        return own


@pytest.mark.parametrize("name", [None, "worker"])
def test_earlier_holders_of_a_lock_are_proved_dead(tmp_path: Path, name: str | None) -> None:
    settings = make_settings(tmp_path, worker_id=name)

    first, second, third = (one_run(settings) for _ in range(3))

    assert first.name == second.name
    assert len({first.worker_id, second.worker_id, third.worker_id}) == 3
    assert first.predecessors == ()
    assert second.predecessors == (first.worker_id,)
    assert third.predecessors == (first.worker_id, second.worker_id)


def test_the_record_of_holders_is_bounded(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)

    runs = [one_run(settings) for _ in range(guards.MAX_PREDECESSORS + 3)]

    assert runs[-1].predecessors == tuple(one.worker_id for one in runs[2:-1])


def test_a_live_worker_is_never_a_predecessor(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with locked_identity(settings) as first, locked_identity(settings) as second:
        assert first.name != second.name
        assert second.predecessors == ()


def test_a_second_live_worker_with_one_worker_id_is_refused_in_one_line(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, worker_id="worker")
    with locked_identity(settings):
        with pytest.raises(ConfigurationError, match=r"^WORKER_ID: .*'worker'"), locked_identity(settings):
            pass
        with locked_identity(make_settings(tmp_path, worker_id="another")) as another:
            assert another.predecessors == ()
    one_run(settings)


def test_workers_of_one_name_in_two_data_directories_prove_nothing_about_each_other(tmp_path: Path) -> None:
    with locked_identity(make_settings(tmp_path / "a")) as a, locked_identity(make_settings(tmp_path / "b")) as b:
        assert a.name == b.name
        assert a.worker_id != b.worker_id
        assert a.predecessors == b.predecessors == ()


def test_a_copied_data_directory_proves_nothing(tmp_path: Path) -> None:
    with locked_identity(make_settings(tmp_path / "a")):
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        assert one_run(make_settings(tmp_path / "b")).predecessors == ()


def test_a_holder_of_another_boot_or_machine_is_not_proved_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(tmp_path)
    one_run(settings)
    monkeypatch.setattr(guards, "_boot", lambda: "another")

    assert one_run(settings).predecessors == ()


@pytest.mark.parametrize("text", ["", "\n\n", "garbage", "a b c\n" * 50, "\udcff"])
def test_a_worker_starts_with_any_content_of_the_lock_file(tmp_path: Path, text: str) -> None:
    settings = make_settings(tmp_path)
    one_run(settings)
    [lock] = (tmp_path / "data" / "workers").iterdir()
    lock.write_bytes(text.encode(errors="surrogateescape"))

    assert one_run(settings).predecessors == ()
    assert len(one_run(settings).predecessors) == 1


def test_without_a_usable_directory_a_worker_has_an_identity_and_no_proof(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the directory should be")

    first, second = one_run(make_settings(tmp_path)), one_run(make_settings(tmp_path))

    assert first.worker_id != second.worker_id
    assert second.predecessors == ()
