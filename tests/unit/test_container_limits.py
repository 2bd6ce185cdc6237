"""Cores and memory are the limits of the container, read from the kernel's files."""

import os
from pathlib import Path

import pytest

from overload_demo.lab import preflight
from overload_demo.load.machine import container_memory_bytes, usable_cores

GB, MB = 1_000_000_000, 1_000_000
ALLOWED = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)


def tree(folder: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Write the kernel's files: the groups' below a root, and the list of this process's groups."""
    for name, text in files.items():
        (folder / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "root" / name).write_text(text + "\n")
    (folder / "own").write_text(membership)
    return folder / "root", folder / "own"


V2 = {"memory.max": str(GB), "memory.current": str(300 * MB), "memory.stat": f"anon 1\ninactive_file {100 * MB}"}
V1 = {
    "memory/memory.limit_in_bytes": str(GB),
    "memory/memory.usage_in_bytes": str(300 * MB),
    "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * MB}",
    "cpu/cpu.cfs_quota_us": "50000",
    "cpu/cpu.cfs_period_us": "100000",
}
V1_OF_THE_HOST = "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n"


def test_a_container_of_version_2_limits_both(tmp_path: Path) -> None:
    root, own = tree(tmp_path, "0::/\n", V2 | {"cpu.max": "50000 100000"})

    assert usable_cores(root, own) == 0.5
    assert container_memory_bytes(root, own) == 800 * MB


def test_a_container_of_version_1_whose_path_is_the_hosts_limits_both(tmp_path: Path) -> None:
    root, own = tree(tmp_path, V1_OF_THE_HOST, V1)

    assert usable_cores(root, own) == 0.5
    assert container_memory_bytes(root, own) == 800 * MB


@pytest.mark.parametrize("above", ["", "course/"])
def test_the_lowest_limit_of_all_parent_groups_applies(tmp_path: Path, above: str) -> None:
    group = "course/student/"
    files = {f"{group}cpu.max": "max 100000", f"{above}cpu.max": "25000 100000"}
    files |= {f"{group}memory.max": "max", f"{above}memory.max": str(GB), f"{above}memory.current": str(GB)}
    root, own = tree(tmp_path, f"0::/{group}\n", files)

    assert usable_cores(root, own) == 0.25
    assert container_memory_bytes(root, own) == 0


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/\n", {"memory.max": "max", "cpu.max": "max 100000"}),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}),
        ("", {}),
    ],
)
def test_without_a_limit_the_machines_limit_applies(tmp_path: Path, membership: str, files: dict[str, str]) -> None:
    root, own = tree(tmp_path, membership, files)

    assert usable_cores(root, own) == ALLOWED
    assert container_memory_bytes(root, own) is None


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path / "none") == ALLOWED
    assert container_memory_bytes(tmp_path, tmp_path / "none") is None


def test_the_preflight_shows_the_limits_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = tree(tmp_path, "0::/\n", V2 | {"cpu.max": "50000 100000"})
    monkeypatch.setattr(preflight, "usable_cores", lambda: usable_cores(root, own))
    monkeypatch.setattr(preflight, "container_memory_bytes", lambda: container_memory_bytes(root, own))

    text = repr(preflight.Preflight.here())

    assert "0.5" in text
    assert "0.8 GB" in text
    assert "32,000 sockets at 25 KB each" in text
