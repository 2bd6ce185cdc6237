"""The form of a notebook: short cells, no outputs, no downloads, no hidden state."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.notebooks.kernels import NOTEBOOKS, ROOT
from tests.notebooks.solutions import CHECK, SOLUTIONS

MAX_LINES, MEDIAN_LINES = 20, 5
SLEEPS = {"sleep", "wait_until"}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def nodes(path: Path) -> Iterator[ast.AST]:
    """The syntax of all code cells; top-level await is what notebooks may do."""
    for cell in code_cells(path):
        yield from ast.walk(compile(cell.source, path.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@each_notebook
def test_a_notebook_is_valid_and_named_after_its_number_and_subject(path: Path) -> None:
    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))
    assert re.fullmatch(r"\d\d_[a-z][a-z_]*", path.stem)


@each_notebook
def test_a_notebook_in_git_has_not_been_run(path: Path) -> None:
    for cell in code_cells(path):
        assert (cell.outputs, cell.execution_count) == ([], None), cell.source
    assert set(nbformat.read(path, as_version=4).metadata) == {"kernelspec", "language_info"}, "no widget state"


@each_notebook
def test_a_notebook_names_its_kernel(path: Path) -> None:
    kernelspec = nbformat.read(path, as_version=4).metadata.kernelspec
    assert (kernelspec.name, kernelspec.language) == ("python3", "python")


@each_notebook
def test_code_cells_are_short(path: Path) -> None:
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert max(lengths) <= MAX_LINES
    assert statistics.median(lengths) <= MEDIAN_LINES


@each_notebook
def test_text_stands_before_every_code_cell(path: Path) -> None:
    kinds = [cell.cell_type for cell in nbformat.read(path, as_version=4).cells]
    assert ("code", "code") not in set(pairwise(["code", *kinds]))


@each_notebook
def test_a_notebook_begins_with_its_outcomes_and_its_duration(path: Path) -> None:
    head = nbformat.read(path, as_version=4).cells[0].source
    assert re.match(rf"# {path.stem[:2]} · \S", head)
    assert re.search(r"\d+ minutes", head) and "OVERLOAD_LEVEL" in head
    abilities = head.partition("you can")[2].partition("```")[0]
    assert len(re.findall(r"(?m)^- ", abilities)) == 3
    assert "```" in head, "a diagram of the system"


@each_notebook
def test_a_notebook_predicts_runs_compares_explains_modifies_and_asks(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    titles = re.findall(r"(?m)^## (.+)$", "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))
    rhythm = ("Predict", "Run", "Compare", "Explain", "Modify", "What went wrong?", "Check yourself")
    found = [title for title in titles if title in rhythm]
    assert list(dict.fromkeys(found)) == list(rhythm)


def prose(path: Path) -> str:
    """The text cells of a notebook, or a page, without code."""
    cells = nbformat.read(path, as_version=4).cells if path.suffix == ".ipynb" else []
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown") or path.read_text()
    return re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("path", [*NOTEBOOKS, *(ROOT / "notebooks").glob("*.md")], ids=lambda path: path.name)
def test_kernel_means_the_one_of_jupyter_and_says_so(path: Path) -> None:
    assert re.findall(r"[^|\n]*(?<!Jupyter )\bkernels?\b(?! of the machine)[^|\n]*", prose(path)) == []


@each_notebook
@pytest.mark.parametrize("term", ["goodput", "CCDF"])
def test_a_term_is_defined_where_it_is_first_used(path: Path, term: str) -> None:
    first = re.search(rf"(?i)(\*?)\b{term}\b", prose(path))
    assert first is None or first[1], f"{term} is first used without a definition, which is set in *italics*"


@each_notebook
def test_files_that_a_notebook_names_exist(path: Path) -> None:
    named = re.findall(r"`((?:overload_demo|experiments)/[\w/]+\.\w+)`", path.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@each_notebook
def test_the_parameters_are_in_the_first_code_cell(path: Path) -> None:
    assert "by_level(" in code_cells(path)[0].source
    assert sum("by_level(" in cell.source for cell in code_cells(path)) == 1


@each_notebook
def test_a_parameter_set_from_outside_is_used_everywhere(path: Path) -> None:
    """Papermill puts its values into a new cell below the one that is tagged ``parameters``."""
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == code_cells(path)[:1]
    assigned = [one for one in ast.parse(tagged[0].source).body if isinstance(one, ast.Assign)]
    names = {target.id for one in assigned for target in one.targets if isinstance(target, ast.Name)}
    used = {node.id for one in assigned for node in ast.walk(one.value) if isinstance(node, ast.Name)}
    assert all(line.count("=") < 2 for line in tagged[0].source.splitlines()), "papermill reads no such line"
    assert not names & used, "computed from a parameter here, it would keep the value of before"
    later = {node.id for cell in code_cells(path)[1:] for node in _stored(cell)}
    assert not names & later, "a parameter is set again"


def _stored(cell: NotebookNode) -> Iterator[ast.Name]:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for node in ast.walk(compile(cell.source, "cell", "exec", flags)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node


@each_notebook
def test_an_exercise_ends_with_its_check_and_begins_empty(path: Path) -> None:
    for cell in code_cells(path):
        if CHECK.search(cell.source):
            assert CHECK.match(cell.source.splitlines()[-1]), cell.source
            assert "..." in cell.source


@each_notebook
def test_a_notebook_uses_the_package_and_defines_no_classes(path: Path) -> None:
    assert not [node for node in nodes(path) if isinstance(node, ast.ClassDef)]
    for cell in code_cells(path):
        assert "def " not in cell.source or CHECK.search(cell.source), "a function outside an exercise"
    stars = [
        name for node in nodes(path) if isinstance(node, ast.ImportFrom) for name in node.names if name.name == "*"
    ]
    assert not stars


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS.glob("*.py")], ids=lambda path: path.name)
def test_no_import_path_has_more_than_two_dots(path: Path) -> None:
    imported = re.findall(r"(?:from|import) (overload_demo[\w.]*)", path.read_text())
    assert [name for name in imported if name.count(".") > 1] == []


@each_notebook
def test_a_notebook_never_sleeps(path: Path) -> None:
    called = [node.func for node in nodes(path) if isinstance(node, ast.Call)]
    names = {getattr(function, "attr", getattr(function, "id", "")) for function in called}
    assert not names & SLEEPS


@each_notebook
def test_a_notebook_neither_installs_nor_fetches_anything(path: Path) -> None:
    code = "\n".join(cell.source for cell in code_cells(path))
    assert not re.search(r"pip3?\s+install|\bconda\b|^\s*[!%]", code, re.MULTILINE)
    whole = path.read_text()
    assert not re.search(r"\b(https?|wss?|ftp)://(?!127\.0\.0\.1)", whole)
    assert not re.search(r"\b(?!127\.0\.0\.1\b)\d{1,3}(\.\d{1,3}){3}\b", whole)


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=lambda arguments: arguments[0])
def test_ruff_accepts_the_notebooks(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", *map(str, NOTEBOOKS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
