"""``overload-demo check``: notebooks run again from an empty kernel, and their exercises are reported."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.kernels import cells, environment, no_process_left
from tests.support.commands import run_module

IMPORT = "from overload_demo.course import check"
EXERCISE = IMPORT + '\n\nanswer = {}\n\ncheck("04.hours", answer, jobs=7200, seconds_a_job=1)'
PREDICTION = 'from overload_demo.course import Prediction\n\nPrediction("04.peak", "How deep?", default=5)'


def write(folder: Path, name: str, *sources: str) -> Path:
    path = folder / f"{name}.ipynb"
    nbformat.write(cells(*sources), path)
    return path


def run(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    with no_process_left(folder):
        env = environment(folder) | {"COLUMNS": "200"}
        return run_module("overload_demo", "check", *map(str, arguments), env=env, cwd=folder)


@pytest.mark.course
def test_each_exercise_and_prediction_is_shown_and_written(tmp_path: Path) -> None:
    solved = write(tmp_path, "solved", EXERCISE.format("2"), PREDICTION)
    wrong = write(tmp_path, "wrong", EXERCISE.format("7200"), EXERCISE.format("..."))
    kept = solved.read_bytes()

    outcome = run(tmp_path, solved, wrong, "--json", "found.json", "--csv", "found.csv")

    assert outcome.returncode == 1, "something is left to do"
    assert "not done" in outcome.stdout and "right" in outcome.stdout
    found = [tuple(one.values()) for one in json.loads((tmp_path / "found.json").read_text())]
    assert found == [
        ("solved", "04.hours", "right", 0, None),
        ("solved", "04.peak", "default", None, 5),
        ("wrong", "04.hours", "not yet", 1, None),
        ("wrong", "04.hours", "not done", 0, None),
    ]
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["notebook", "item", "status", "hint_level", "prediction"]
    assert rows[2] == ["solved", "04.peak", "default", "", "5"]
    assert solved.read_bytes() == kept, "the notebook itself stays as it is"


def test_all_right_is_exit_code_0_and_the_entered_prediction_counts(tmp_path: Path) -> None:
    solved = write(tmp_path, "solved", EXERCISE.format("2.0"), PREDICTION)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "predictions.json").write_text('{"04.peak": "60,000"}')

    outcome = run(tmp_path, solved, "--json", "found.json")

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert json.loads((tmp_path / "found.json").read_text())[1]["prediction"] == 60_000
    assert outcome.stderr == ""


@pytest.mark.course
def test_a_failing_cell_is_reported_and_the_rest_is_checked(tmp_path: Path) -> None:
    outcome = run(tmp_path, write(tmp_path, "broken", "1 / 0", EXERCISE.format("2")))

    assert outcome.returncode == 1
    assert "ZeroDivisionError: division by zero" in outcome.stdout
    assert "right" in outcome.stdout


def test_an_invalid_notebook_is_a_one_line_error_before_anything_runs(tmp_path: Path) -> None:
    good = write(tmp_path, "good", "import pathlib; pathlib.Path('it ran').touch()")
    (tmp_path / "text.ipynb").write_text("{}")

    for name, reason in (("gone.ipynb", "No such file"), ("text.ipynb", "not a notebook")):
        outcome = run(tmp_path, good, name)
        assert outcome.returncode == 1
        assert outcome.stderr.count("\n") == 1 and reason in outcome.stderr
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("package", ["nbclient", "nbformat"])
def test_without_the_extra_the_error_names_it(tmp_path: Path, package: str) -> None:
    (tmp_path / f"{package}.py").write_text("raise ImportError('not installed')")
    notebook = write(tmp_path, "one", "1")
    command = [sys.executable, "-m", "overload_demo", "check", str(notebook)]

    outcome = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd="/", capture_output=True, text=True
    )

    assert outcome.returncode == 1
    assert "pip install -e '.[notebooks]'" in outcome.stderr
