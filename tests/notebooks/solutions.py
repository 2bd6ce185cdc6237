"""Solutions of the exercises, kept apart in ``notebooks/solutions`` and put into a notebook's cells here."""

import re
from pathlib import Path

from nbformat import NotebookNode

from tests.notebooks.kernels import ROOT

SOLUTIONS = ROOT / "notebooks" / "solutions"
CHECK = re.compile(r'^check\("([^"]+)"', re.MULTILINE)


def exercises_in(notebook: NotebookNode) -> list[str]:
    """The exercises of a notebook, in its order."""
    return [key for cell in notebook.cells if cell.cell_type == "code" for key in CHECK.findall(cell.source)]


def solutions_of(path: Path) -> dict[str, str]:
    """What goes into the exercise cells of a notebook, by exercise; pieces begin with ``# %% NN.name``."""
    pieces = re.split(r"(?m)^# %% (\S+)\n", (SOLUTIONS / f"{path.stem}.py").read_text())
    return dict(zip(pieces[1::2], (text.strip() for text in pieces[2::2]), strict=True))


def solve(notebook: NotebookNode, path: Path) -> NotebookNode:
    """The notebook with each exercise solved: what stands before the check is replaced, but for imports."""
    solutions = solutions_of(path)
    for cell in notebook.cells:
        if cell.cell_type == "code" and (found := CHECK.search(cell.source)):
            lines = cell.source[: found.start()].splitlines()
            imports = [line for line in lines if line.startswith(("import ", "from "))]
            cell.source = "\n".join([*imports, solutions[found[1]], cell.source[found.start() :]])
    return notebook
