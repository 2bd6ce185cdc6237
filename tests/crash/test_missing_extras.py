"""A command without its extra fails with one line before anything is started."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cases import plain_first
from tests.support.running import environment

# Only the packages of pyproject's [project] are there, not those of its extras.
WITHOUT_EXTRAS = """
import runpy, sys
EXTRAS = {"anywidget", "bokeh", "IPython", "ipykernel", "ipywidgets", "jupyterlab", "nbclient", "nbformat"}
EXTRAS |= {"simpy", "traitlets"}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
"""
RUN = WITHOUT_EXTRAS + "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"


def run(folder: Path, code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, env=environment(folder), cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("command", "extra"),
    plain_first(
        [
            ("overload_demo check 00.ipynb", "notebooks"),
            ("overload_demo.live", "dashboard"),
            ("overload_demo.live --control", "dashboard"),
            ("overload_demo.live --rehearse", "dashboard"),
            ("overload_demo.live --replay runs/one", "dashboard"),
            ("overload_demo spike --live --requests 10", "dashboard"),
        ],
        2,
    ),
)
def test_a_command_without_its_extra_is_one_line(tmp_path: Path, command: str, extra: str) -> None:
    outcome = run(tmp_path, RUN, *command.split())

    [line] = outcome.stderr.splitlines()
    assert outcome.returncode == 1
    assert line.startswith("error: ")
    assert f"pip install -e '.[{extra}]'" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "command", plain_first(["overload_demo watch http://127.0.0.1:1", "overload_demo spike --requests 0"])
)
def test_a_command_that_needs_no_extra_runs_without_one(tmp_path: Path, command: str) -> None:
    outcome = run(tmp_path, RUN, *command.split())

    [line] = outcome.stderr.splitlines()
    assert "pip install" not in line


def test_the_live_view_of_a_notebook_names_its_extra(tmp_path: Path) -> None:
    code = WITHOUT_EXTRAS.replace('"bokeh", ', "") + "import overload_demo.live.dashboard"

    outcome = run(tmp_path, code, "")

    assert outcome.stderr.splitlines()[-1].endswith("pip install -e '.[dashboard]'")
