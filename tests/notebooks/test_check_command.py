"""``overload-demo check``: notebooks run again from an empty kernel, and their exercises are reported."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from overload_demo.course.inventory import items
from tests.notebooks.kernels import cells, environment, no_process_left
from tests.support.cases import plain_first
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
        ("solved", "04.hours", "right", 0, None, None, None, None),
        ("solved", "04.peak", "default", None, 5, None, None, None),
        ("wrong", "04.hours", "not yet", 1, None, None, None, None),
        ("wrong", "04.hours", "not done", 0, None, None, None, None),
    ]
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["notebook", "item", "status", "hint_level", "prediction", "pre", "post", "gain"]
    assert rows[2] == ["solved", "04.peak", "default", "", "5", "", "", ""]
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


def inventory(folder: Path, pre: int, post: int) -> Path:
    """A student's folder whose inventory has so many right answers."""
    (folder / "runs").mkdir(parents=True)
    wrong = {item.key: "A" if item.right != "A" else "B" for item in items()}
    right = [(item.key, item.right) for item in items()]
    answers = {"pre": wrong | dict(right[:pre]), "post": wrong | dict(right[:post])}
    (folder / "runs" / "inventory.json").write_text(json.dumps(answers))
    return folder


def test_a_class_of_folders_gets_its_gain_and_no_notebook_runs(tmp_path: Path) -> None:
    for name, pre, post in (("ada", 3, 9), ("bob", 6, 12), ("cy", 12, 12)):
        write(inventory(tmp_path / name, pre, post), "04_spike", "import pathlib; pathlib.Path('it ran').touch()")
    broken = inventory(tmp_path / "dot", 1, 2) / "runs" / "inventory.json"
    broken.write_text("{")

    outcome = run(tmp_path, "ada", "bob", "cy", "dot", "--json", "gains.json", "--csv", "gains.csv")

    assert outcome.returncode == 1 and outcome.stderr == "", "one file is broken"
    found = {one["notebook"]: one for one in json.loads((tmp_path / "gains.json").read_text())}
    assert [round(found[name]["gain"] or -1, 2) for name in ("ada", "bob", "cy")] == [0.67, 1, -1]
    assert found["cy"]["gain"] is None, "100 % before the course: there was nothing to gain"
    assert found["(class)"]["gain"] == pytest.approx((11 / 12 - 7 / 12) / (1 - 7 / 12))
    assert found["dot"]["status"] == "cannot read dot/runs/inventory.json: it is not an inventory"
    with (tmp_path / "gains.csv").open() as file:
        rows = {row["notebook"]: row for row in csv.DictReader(file)}
    assert (rows["ada"]["pre"], rows["ada"]["post"], rows["cy"]["gain"]) == ("0.25", "0.75", "")
    line = next(line for line in outcome.stdout.splitlines() if "(class)" in line)
    assert [cell.strip() for cell in line.split("│")] == [
        "(class)",
        "inventory",
        "mean: 3 of 4 folders",
        "58 %",
        "92 %",
        "0.80",
    ]
    assert not list(tmp_path.rglob("it ran"))


@pytest.mark.course
def test_a_notebooks_inventory_is_reported_with_its_exercises(tmp_path: Path) -> None:
    solved = write(inventory(tmp_path / "ada", 6, 9), "solved", EXERCISE.format("2.0"))

    outcome = run(tmp_path, solved, "--json", "found.json")

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(one["item"], one["status"], one["gain"]) for one in found] == [
        ("04.hours", "right", None),
        ("inventory", "complete", 0.5),
    ]


@pytest.mark.course
def test_an_invalid_notebook_is_a_one_line_error_before_anything_runs(tmp_path: Path) -> None:
    good = write(tmp_path, "good", "import pathlib; pathlib.Path('it ran').touch()")
    (tmp_path / "text.ipynb").write_text("{}")

    for name, reason in (("gone.ipynb", "No such file"), ("gone/", "No such file"), ("text.ipynb", "not a notebook")):
        outcome = run(tmp_path, good, name)
        assert outcome.returncode == 1
        assert outcome.stderr.count("\n") == 1 and reason in outcome.stderr
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("package", plain_first(["nbclient", "nbformat"]))
def test_without_the_extra_the_error_names_it(tmp_path: Path, package: str) -> None:
    (tmp_path / f"{package}.py").write_text("raise ImportError('not installed')")
    notebook = write(tmp_path, "one", "1")
    command = [sys.executable, "-m", "overload_demo", "check", str(notebook)]

    outcome = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd="/", capture_output=True, text=True
    )

    assert outcome.returncode == 1
    assert "pip install -e '.[notebooks]'" in outcome.stderr


@pytest.mark.course
def test_a_notebook_that_kills_its_kernel_is_one_finding_of_a_class(tmp_path: Path) -> None:
    deadly = write(tmp_path, "04_bob", EXERCISE.format("2"), "import os; os._exit(1)")
    solved = write(tmp_path, "solved", EXERCISE.format("2"))

    outcome = run(tmp_path, deadly, solved, "--json", "found.json")

    assert (outcome.returncode, outcome.stderr) == (1, "")
    found = [(one["notebook"], one["item"], one["status"]) for one in json.loads((tmp_path / "found.json").read_text())]
    assert found[:2] == [("04_bob", "04.hours", "right"), ("04_bob", "a cell", "DeadKernelError: Kernel died")]
    assert found[-1] == ("solved", "04.hours", "right")


@pytest.mark.course
def test_exercises_whose_cells_were_deleted_are_not_done(tmp_path: Path) -> None:
    outcome = run(tmp_path, write(tmp_path, "04_ada", EXERCISE.format("2")), "--json", "found.json")

    assert outcome.returncode == 1
    found = {one["item"]: one["status"] for one in json.loads((tmp_path / "found.json").read_text())}
    assert found.pop("04.hours") == "right"
    assert len(found) >= 3 and set(found.values()) == {"not done"}
    assert all(item.startswith("04.") for item in found)


@pytest.mark.course
def test_findings_that_cannot_be_written_are_a_one_line_error_before_anything_runs(tmp_path: Path) -> None:
    notebook = write(tmp_path, "good", "import pathlib; pathlib.Path('it ran').touch()")

    outcome = run(tmp_path, notebook, "--json", "gone/found.json")

    assert outcome.returncode == 1 and outcome.stderr.count("\n") == 1 and "gone/found.json" in outcome.stderr
    assert not (tmp_path / "it ran").exists()
