"""The preflight reports the limits of this machine, and no secrets."""

import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from overload_demo.lab.preflight import Preflight, filesystem_of
from tests.notebooks.students.preflight import machine

# A kernel started from a shell with a low descriptor limit.
UNDER_256 = "ulimit -n 256 && exec {} -c 'from overload_demo.lab.preflight import Preflight; print(Preflight.here())'"


def test_it_reads_this_machine(tmp_path: Path) -> None:
    report = Preflight.here(tmp_path / "not" / "yet")

    assert report.python == ".".join(map(str, sys.version_info[:3]))
    assert report.cores >= 1
    assert report.descriptors_now == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert report.filesystem
    assert report.missing_packages == ()


def test_a_small_descriptor_limit_is_shown_in_sockets() -> None:
    done = subprocess.run(["/bin/sh", "-c", UNDER_256.format(sys.executable)], capture_output=True, text=True)

    assert "256 (now 256)" in done.stdout, done.stderr
    assert "192 sockets a process" in done.stdout


def test_the_smallest_limit_is_the_first() -> None:
    assert machine(descriptors=256).first_limit() == "descriptors"
    assert machine(descriptors=65_536).first_limit() == "ports"
    assert machine(memory_bytes=1_000_000).first_limit() == "memory"


def test_proxy_variables_are_named_and_their_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://ada:secret@127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "")

    report = Preflight.here()

    assert "HTTP_PROXY" in report.proxies
    assert "https_proxy" not in report.proxies
    assert "secret" not in repr(report) + report._repr_html_()


def test_one_core_and_missing_packages_are_shown_with_the_remedy() -> None:
    report = Preflight(**(vars(machine()) | {"cores": 1, "missing_packages": ("ipywidgets",), "filesystem": "tmpfs"}))

    text = report._repr_html_()

    assert "generator-bound" in text
    assert "missing: ipywidgets" in text
    assert "not a disk" in text


def test_a_folder_beside_a_mount_point_is_not_on_its_file_system() -> None:
    for part in psutil.disk_partitions(all=True):
        beside = Path(f"{part.mountpoint}-beside-it")
        assert filesystem_of(beside) == filesystem_of(beside.parent)
