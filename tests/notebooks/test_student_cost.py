"""The cost of a student is measured on real processes; a failed notebook is not recorded."""

import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

from experiments.student_cost import StudentCost, Watch
from tests.notebooks.kernels import ROOT, cells
from tests.support.waiting import wait_until

pytestmark = pytest.mark.course

BUSY = "x = bytearray(30_000_000)\nwhile True: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"


def measured(notebook: Path, output: Path) -> "subprocess.CompletedProcess[str]":
    """Measure a notebook; its runs go below the checkout, as a temporary folder may lie in memory."""
    options = ("--notebook", str(notebook), "--level", "test", "--output", str(output))
    return subprocess.run(
        [sys.executable, "-m", "experiments.student_cost", *options], cwd=ROOT, capture_output=True, text=True
    )


def written(path: Path, *sources: str) -> Path:
    notebook = cells(*sources)
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(notebook, path)
    return path


def test_a_notebook_is_measured_with_its_kernel(tmp_path: Path) -> None:
    output = tmp_path / "cost.json"

    outcome = measured(written(tmp_path / "small.ipynb", "1 + 1"), output)

    assert outcome.returncode == 0, outcome.stderr
    cost = StudentCost.model_validate_json(output.read_bytes())
    assert cost.peak_by_part_mb.keys() == {"Jupyter kernel", "check command"}
    assert min(cost.peak_by_part_mb.values()) > 0
    assert cost.peak_mb <= sum(cost.peak_by_part_mb.values()) + 1
    assert cost.cpu_s > 0
    assert cost.jupyterlab_mb > 0


def test_a_notebook_that_fails_is_not_recorded(tmp_path: Path) -> None:
    output = tmp_path / "cost.json"

    outcome = measured(written(tmp_path / "broken.ipynb", "1 / 0"), output)

    assert outcome.returncode == 1
    assert outcome.stderr.strip() == "error: a cell failed: ZeroDivisionError: division by zero"
    assert not output.exists()


def test_the_whole_tree_counts_ended_processes_included() -> None:
    watch = Watch()
    with psutil.Popen([sys.executable, "-c", PARENT]) as parent:
        try:

            def grandchild_has_worked() -> bool:
                watch.look(parent)
                return watch.cpu_s > 0.5

            wait_until("the grandchild has worked", grandchild_has_worked)
            spent_s = watch.cpu_s
        finally:
            for process in [*parent.children(recursive=True), parent]:
                process.kill()
    watch.look(parent)

    assert watch.peak_mb > 30
    assert watch.cpu_s >= spent_s
