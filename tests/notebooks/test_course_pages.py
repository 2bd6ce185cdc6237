"""The course as static pages, and the recorded figures: what a reader sees who runs nothing."""

import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
from matplotlib.figure import Figure
from nbformat import NotebookNode

from experiments.bench.record import RESULTS, Place
from experiments.course import MAX_FIGURE_BYTES, SHOWS, TELLING, TellingFigure, main, record_figures
from experiments.readme.documents import ROOT
from overload_demo.course import Level
from overload_demo.errors import OverloadDemoError
from tests.browser.static import STRAY
from tests.notebooks.kernels import NOTEBOOKS, read

RECORDED = TellingFigure.all_recorded()


def png() -> str:
    buffer = io.BytesIO()
    Figure().savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def executed(folder: Path, shown: str, tags: tuple[str, ...] = (TELLING,)) -> Path:
    """A notebook that was run, whose one cell has shown this HTML and a widget."""
    data = {"text/html": shown, "text/plain": "a text", "application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    cell = nbformat.v4.new_code_cell("plots.x()", outputs=[nbformat.v4.new_output("execute_result", data)])
    cell.metadata |= {"tags": list(tags), SHOWS: "One sentence. And <another>."}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 99 \u00b7 A & B"), cell])
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    path = folder / "99_test.ipynb"
    nbformat.write(notebook, path)
    return path


def a_figure(alt: str = "Two curves &amp; a line") -> str:
    return f'<figure><img style="max-width:100%" alt="{alt}" src="data:image/png;base64,{png()}"></figure>'


def place() -> Place:
    return RECORDED[0].place


def test_the_pages_of_executed_notebooks_hold_everything_and_link_to_each_other(tmp_path: Path) -> None:
    path = executed(tmp_path, a_figure())

    main([path], executed=tmp_path, output=tmp_path / "site")

    page, index = (tmp_path / "site" / name for name in ("99_test.html", "index.html"))
    assert 'href="index.html"' in page.read_text() and 'href="99_test.html"' in index.read_text()
    for text in (page.read_text(), index.read_text()):
        assert 'alt="Two curves &amp; a line"' in text
        assert STRAY.findall(re.sub('base64,[^"]+', "", text)) == []
        assert re.findall(r"(?:src|href)=\"(?!data:|#)([^\"]+)", text) in (["index.html"], ["99_test.html"])
    assert "A &amp; B" in index.read_text() and "And &lt;another&gt;." in index.read_text()


def test_a_telling_figure_is_written_with_its_record(tmp_path: Path) -> None:
    record_figures([executed(tmp_path, a_figure())], Level.TEST, place(), tmp_path)

    record = TellingFigure.model_validate_json((tmp_path / "notebook_99_test.json").read_bytes())
    assert (record.title, record.alt) == ("99 \u00b7 A & B", "Two curves &amp; a line")
    assert (tmp_path / "notebook_99_test.png").read_bytes().startswith(b"\x89PNG")


def test_a_notebook_without_a_telling_figure_is_an_error(tmp_path: Path) -> None:
    for shown, tags in ((a_figure(), ()), ("no figure", (TELLING,))):
        with pytest.raises(OverloadDemoError, match=r"99_test\.ipynb: no figure in a cell that is tagged 'telling'"):
            record_figures([executed(tmp_path, shown, tags)], Level.TEST, place(), tmp_path)


def tagged(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if TELLING in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_one_telling_figure_and_two_sentences_on_it(path: Path) -> None:
    [cell] = tagged(read(path))

    assert "plots." in cell.source
    assert len(re.findall(r"[.]( |$)", cell.metadata[SHOWS])) == 2
    assert not re.search(r"\d", re.sub(r"kill -9|\b202\b", "", cell.metadata[SHOWS])), "numbers are in the figure"


def test_each_recorded_figure_is_small_and_of_a_notebook_that_is_there() -> None:
    assert {one.notebook for one in RECORDED} == {path.name for path in NOTEBOOKS}
    for one in RECORDED:
        assert (RESULTS / f"notebook_{Path(one.notebook).stem}.png").stat().st_size <= MAX_FIGURE_BYTES
        assert one.shows == tagged(read(ROOT / "notebooks" / one.notebook))[0].metadata[SHOWS]
