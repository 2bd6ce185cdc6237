"""Run notebooks again, from an empty kernel, and collect what their exercises and predictions came to."""

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from overload_demo.course import predictions
from overload_demo.course.checks import exercise
from overload_demo.errors import ConfigurationError

CELL_TIMEOUT_S = 600


@dataclass(frozen=True)
class Finding:
    """One line of the table: an exercise, a prediction, or an error that a cell ended with.

    ``status`` is "not done", "not yet" or "right" of an exercise, "entered" or "default" of a prediction, and the error
    itself of a cell. ``hint_level`` counts the hints an exercise gave.
    """

    notebook: str
    item: str
    status: str
    hint_level: int | None = None
    prediction: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether something is left to do: an exercise that is not right, or a cell that fails."""
        return self.status not in ("right", "entered", "default")


def read(path: Path) -> Any:
    """A notebook. Raises :class:`ConfigurationError` when it is none, or the packages for notebooks are missing."""
    try:
        import nbclient  # noqa: F401  # what rerun needs; better known before minutes of work
        import nbformat
    except ImportError:
        raise ConfigurationError("this needs more packages: pip install -e '.[notebooks]'") from None
    try:
        return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a broken file makes its reader say
        reason = error.strerror if isinstance(error, OSError) else "it is not a notebook"
        raise ConfigurationError(f"cannot read {path}: {reason}") from None


def rerun(notebook: Any, path: Path, level: str) -> list[Finding]:
    """Run a notebook that was read from ``path`` top to bottom in its own folder, whatever fails; the file stays."""
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        allow_errors=True,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # its warnings are not the student's
    )
    client.execute(cwd=str(path.resolve().parent), env=os.environ | {"OVERLOAD_LEVEL": level})
    return list(findings(path.stem, notebook))


def findings(name: str, notebook: Any) -> Iterator[Finding]:
    """What the outputs of an executed notebook say, in its order."""
    for output in (one for cell in notebook.cells for one in cell.get("outputs", [])):
        data = output.get("data", {})
        if told := data.get(exercise.MIME):
            yield Finding(name, told["exercise"], told["status"], hint_level=told["hint_level"])
        elif told := data.get(predictions.MIME):
            status = "entered" if told["is_own"] else "default"
            yield Finding(name, told["prediction"], status, prediction=told["value"])
        elif output["output_type"] == "error":
            yield Finding(name, "a cell", f"{output['ename']}: {output['evalue']}"[:200])


def table(found: Sequence[Finding]) -> Table:
    """What notebooks that were run again came to, a line an exercise or prediction."""
    shown = Table(show_edge=False)
    for head in ("notebook", "exercise or prediction", "status", "hints", "predicted"):
        shown.add_column(head, justify="right" if head in ("hints", "predicted") else "left")
    for one in found:
        hints = "" if one.hint_level is None else str(one.hint_level)
        predicted = "" if one.prediction is None else f"{one.prediction:,.6g}"
        shown.add_row(one.notebook, one.item, Text(one.status), hints, predicted)
    return shown


def write_json(found: Sequence[Finding], path: Path) -> None:
    """A list of objects, a finding each."""
    with _writing(path):
        path.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


def write_csv(found: Sequence[Finding], path: Path) -> None:
    """A head line and a line a finding, as any course system takes it."""
    with _writing(path), path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Finding)])
        writer.writeheader()
        writer.writerows(asdict(one) for one in found)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
