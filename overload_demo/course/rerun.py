"""Run notebooks again, from an empty kernel, and collect the results of their exercises and predictions."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from overload_demo.course import exercise
from overload_demo.course.prediction import PREDICTION_MIME
from overload_demo.errors import ConfigurationError

CELL_TIMEOUT_S = 600
CLOSED = {"right", "entered", "default", "complete", "incomplete", "mean"}  # how a status begins


@dataclass(frozen=True)
class Finding:
    """One line of the report: an exercise, a prediction, an error in a cell, or the inventory of a folder.

    ``status`` is "not done", "not yet" or "right" for an exercise, "entered" or "default" for a prediction, the error
    for a cell. ``hint_level`` counts the hints that an exercise has given. ``pre`` and ``post`` are the shares of right
    answers before and after the course, 0 to 1, and ``gain`` the normalised gain; see ``inventory``.
    """

    notebook: str
    item: str
    status: str
    hint_level: int | None = None
    prediction: float | None = None
    pre: float | None = None
    post: float | None = None
    gain: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether something is left to do: an exercise that is not right, a cell that fails, a file that is broken.

        The inventory is not graded: a form that is incomplete leaves nothing to do.
        """
        return self.item == "a cell" or self.status.partition(":")[0] not in CLOSED


def read(path: Path) -> Any:
    """Read a notebook. Raises :class:`ConfigurationError` if it is none, or the packages for notebooks are missing."""
    try:
        import nbclient  # noqa: F401  # needed by rerun: report it before minutes of work
        import nbformat
    except ImportError:
        raise ConfigurationError("this needs more packages: pip install -e '.[notebooks]'") from None
    try:
        return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except Exception as error:  # a broken file makes the reader raise many kinds of error
        reason = error.strerror if isinstance(error, OSError) else "it is not a notebook"
        raise ConfigurationError(f"cannot read {path}: {reason}") from None


def rerun(notebook: Any, path: Path, level: str) -> list[Finding]:
    """Run a notebook that was read from ``path`` in its own folder, past errors too; leave the file unchanged."""
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        allow_errors=True,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # the kernel's warnings do not concern the student
    )
    stopped = []
    try:
        client.execute(cwd=str(path.resolve().parent), env=os.environ | {"OVERLOAD_LEVEL": level})
    except (RuntimeError, TimeoutError) as error:  # such as DeadKernelError, CellTimeoutError
        stopped = [Finding(path.stem, "a cell", f"{type(error).__name__}: {error}".partition("\n")[0][:200])]
    found = [*findings(path.stem, notebook), *stopped]
    keys = [key for key in exercise.exercises() if key.startswith(f"{path.stem[:2]}.")]  # "04.": of this notebook
    missing = [key for key in keys if key not in {one.item for one in found}]
    return found + [Finding(path.stem, key, exercise.Status.NOT_DONE.value) for key in missing]


def findings(name: str, notebook: Any) -> Iterator[Finding]:
    """Yield the findings in the outputs of an executed notebook, in its order."""
    for output in (one for cell in notebook.cells for one in cell.get("outputs", [])):
        data = output.get("data", {})
        if found := data.get(exercise.MIME):
            yield Finding(name, found["exercise"], found["status"], hint_level=found["hint_level"])
        elif found := data.get(PREDICTION_MIME):
            status = "entered" if found["is_own"] else "default"
            yield Finding(name, found["prediction"], status, prediction=found["value"])
        elif output["output_type"] == "error":
            yield Finding(name, "a cell", f"{output['ename']}: {output['evalue']}"[:200])


def table(found: Sequence[Finding]) -> Table:
    """Return the findings as a table, a line each."""
    shown = Table(show_edge=False)
    for head in ("notebook or folder", "item", "status"):
        shown.add_column(head)
    numbers = {"hint_level": "d", "prediction": ",.6g", "pre": ".0%", "post": ".0%", "gain": ".2f"}
    used = {name: form for name, form in numbers.items() if any(getattr(one, name) is not None for one in found)}
    for name in used:
        shown.add_column({"hint_level": "hints", "prediction": "predicted"}.get(name, name), justify="right")
    for one in found:
        cells = {name: getattr(one, name) for name in used}
        texts = ("" if value is None else format(value, used[name]).replace("%", " %") for name, value in cells.items())
        shown.add_row(Text(one.notebook), one.item, Text(one.status), *texts)
    return shown


def write(found: Sequence[Finding], path: Path | None, form: str) -> None:
    """Write the findings as ``form``, unless ``path`` is None: "json" is a list of objects, "csv" a line each."""
    if path is None:
        return
    rows = [asdict(one) for one in found]
    try:
        with path.open("w", newline="") as file:
            if form == "json":
                file.write(json.dumps(rows, indent=1) + "\n")
            else:
                writer = csv.DictWriter(file, [field.name for field in fields(Finding)])
                writer.writeheader()
                writer.writerows(rows)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
