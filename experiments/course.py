"""The course as static pages, and its telling figures: ``python -m experiments.course``.

Runs each notebook from an empty kernel, as a student finds it, and writes ``NN_slug.html`` beside an ``index.html``.
The pages need no script and no other host. With ``--figures`` the figure of each cell that is tagged ``telling`` is
recorded beside the other results, with the text ``shows`` of that cell's metadata, and the documents follow.
"""

import base64
import io
import re
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Self

import nbformat
import typer
from jinja2 import DictLoader
from nbconvert import HTMLExporter
from PIL import Image

from experiments.bench.record import RESULTS, Facts, Place
from overload_demo.console import one_line_errors
from overload_demo.course import Level
from overload_demo.course.rerun import read, rerun
from overload_demo.errors import OverloadDemoError

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TEMPLATES = {path.name: path.read_text() for path in Path(__file__).with_name("course_pages").iterdir()}
TELLING, SHOWS = "telling", "shows"  # a cell's tag, and the name of its two sentences
MAX_FIGURE_BYTES = 100_000
FIGURE = re.compile(r'<img [^>]*alt="([^"]+)" src="data:image/png;base64,([^"]+)"')
WIDGET = "application/vnd.jupyter.widget-view+json"


class TellingFigure(Facts):
    """The figure of a notebook that was run; the PNG stands beside the record. ``alt`` is escaped HTML."""

    place: Place
    level: Level
    notebook: str
    title: str
    shows: str
    alt: str

    @classmethod
    def all_recorded(cls) -> list[Self]:
        """Read every record, in the order of the notebooks."""
        return [cls.model_validate_json(path.read_bytes()) for path in sorted(RESULTS.glob("notebook_*.json"))]


def main(
    notebooks: Annotated[list[Path] | None, typer.Argument(help="notebooks", show_default="all", exists=True)] = None,
    level: Annotated[Level, typer.Option(help="how heavy their load is")] = Level.QUICK,
    output: Annotated[Path, typer.Option(help="folder of the pages and of the executed notebooks")] = Path(
        "runs/course"
    ),
    executed: Annotated[Path | None, typer.Option(help="folder of notebooks that have been run: runs none")] = None,
    figures: Annotated[bool, typer.Option("--figures", help="Record the telling figures too.")] = False,
) -> None:
    """Run the notebooks and write the course as static pages."""
    with one_line_errors():
        output.mkdir(parents=True, exist_ok=True)
        run = []
        for path in notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
            if executed is None:
                nbformat.write(executed_notebook(path, level, output), output / path.name)
            run.append((executed or output) / path.name)
            print(f"{path.stem}")
        build(run, output)
        if figures:
            from experiments.readme.documents import bring_up_to_date  # it reads these records

            record_figures(run, level, Place.here("experiments.course", output))
            bring_up_to_date()
        print(f"written: {output / 'index.html'}")


def executed_notebook(path: Path, level: Level, folder: Path) -> Any:
    """Run a notebook in a directory of its own below ``folder``. Raises :class:`OverloadDemoError` if a cell fails."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as temporary:
        copy = Path(shutil.copy(path, temporary))
        notebook = read(copy)
        failed = [one.status for one in rerun(notebook, copy, level) if one.item == "a cell"]
    if failed:
        raise OverloadDemoError(f"{path.name}: a cell has failed: {failed[0]}")
    return notebook


def build(executed: list[Path], output: Path) -> None:
    """Write a page for each executed notebook, and the index."""
    pages = []
    for path in executed:
        notebook = read(path)
        (output / f"{path.stem}.html").write_text(page_of(notebook))
        figure = telling_figure(notebook)
        pages.append({"href": f"{path.stem}.html", "title": title_of(notebook), "figure": figure})
    (output / "index.html").write_text(
        exporter("index.html.j2").environment.get_template("index.html.j2").render(pages=pages)
    )


def page_of(notebook: Any) -> str:
    """Return an executed notebook as one HTML page; a widget is shown as its text."""
    for cell in notebook.cells:
        for one in cell.get("outputs", []):
            one.get("data", {}).pop(WIDGET, None)
    notebook.metadata.pop("widgets", None)
    body, _ = exporter("notebook.html.j2").from_notebook_node(notebook, {"title": title_of(notebook)})
    return re.sub(
        r"<th( [^>]*)?></th>", r"<td\1></td>", body
    )  # Markdown cannot leave the corner of a table without one


def exporter(name: str) -> HTMLExporter:
    """Return nbconvert's exporter with one of our templates."""
    return HTMLExporter(
        template_file=name, extra_loaders=[DictLoader(TEMPLATES)], exclude_input_prompt=True, exclude_output_prompt=True
    )


def title_of(notebook: Any) -> str:
    """Return the heading of a notebook."""
    return str(notebook.cells[0].source.partition("\n")[0].removeprefix("# "))


def telling_figure(notebook: Any) -> dict[str, Any] | None:
    """Return the figure of the cell tagged ``telling``: ``shows``, ``alt`` (escaped HTML) and ``png`` (base64)."""
    for cell in notebook.cells:
        if TELLING in cell.metadata.get("tags", []):
            shown = "".join(one.get("data", {}).get("text/html", "") for one in cell.outputs)
            if found := FIGURE.search(shown):
                return {"shows": cell.metadata[SHOWS], "alt": found[1], "png": found[2]}
    return None


def record_figures(executed: list[Path], level: Level, place: Place, folder: Path = RESULTS) -> None:
    """Write PNG and record of each telling figure into ``folder``.

    Raises :class:`OverloadDemoError` for a notebook without one, or a file larger than :data:`MAX_FIGURE_BYTES`.
    """
    for path in executed:
        notebook = read(path)
        if (figure := telling_figure(notebook)) is None:
            raise OverloadDemoError(f"{path.name}: no figure in a cell that is tagged {TELLING!r}")
        png, record = smaller(base64.b64decode(figure.pop("png"))), folder / f"notebook_{path.stem}.json"
        if len(png) > MAX_FIGURE_BYTES:
            raise OverloadDemoError(f"{path.name}: its figure has {len(png):,} bytes, more than {MAX_FIGURE_BYTES:,}")
        record.with_suffix(".png").write_bytes(png)
        found = TellingFigure(place=place, level=level, notebook=path.name, title=title_of(notebook), **figure)
        record.write_text(found.model_dump_json(indent=1) + "\n")


def smaller(png: bytes) -> bytes:
    """Return a figure with a palette of 128 colours, which the look of all figures does not exceed visibly."""
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128).save(small, "PNG", optimize=True)
    return small.getvalue()


def figures_block(recorded: list[TellingFigure]) -> str:
    """Return the recorded figures for the course guide."""
    shown = []
    for one in recorded:
        image = f"![{re.sub(r'[][]', '', one.alt)}](../experiments/results/notebook_{Path(one.notebook).stem}.png)"
        shown.append(f"**[{one.title}]({one.notebook}).** {one.shows}\n\n{image}")
    runs = sorted({f"{one.place.recorded}, level `{one.level}`; {one.place.where}." for one in recorded})
    return "\n\n".join([*shown, *runs])


if __name__ == "__main__":
    typer.run(main)
