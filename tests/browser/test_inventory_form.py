"""The form of the concept inventory in a real JupyterLab in Chromium. Part of ``pytest -m course``."""

import json
from pathlib import Path

import nbformat
import pytest

from overload_demo.course.inventory import KEPT_IN, items
from tests.browser.lab import LabPage, lab_page, lab_server
from tests.browser.tab import chromium
from tests.notebooks.kernels import NOTEBOOKS, cells, read
from tests.support.waiting import wait_until

pytestmark = pytest.mark.course

PREFLIGHT = next(path for path in NOTEBOOKS if path.stem == "00_preflight")
FORM = next(cell.source for cell in read(PREFLIGHT).cells if cell.cell_type == "code" and "Inventory(" in cell.source)

# The texts of answers that are wider than their place, or not in one line with their button.
BADLY_SET = """all => all.filter(one => {
  const [text, place] = [one, one.closest(".jp-OutputArea-output")].map(it => it.getBoundingClientRect());
  return text.right > place.right || text.height > 30 || one.scrollHeight > one.clientHeight + 4;
}).map(one => one.textContent)"""
# The texts of answers that end outside of their place, or overlap the next one.
CUT_OFF = """all => all.filter(one => {
  const [text, place] = [one, one.closest(".jp-OutputArea-output")].map(it => it.getBoundingClientRect());
  return text.right > place.right || one.scrollHeight > one.clientHeight + 4;
}).map(one => one.textContent)"""


def show(lab: LabPage) -> None:
    lab.open("form.ipynb")
    lab.restart_and_run_all()
    wait_until("the form is shown", lambda: lab.field(0).count() == 4 * len(items()), 40.0)


def test_the_form_shows_whole_texts_and_keeps_what_is_chosen_over_a_restart(tmp_path: Path) -> None:
    chromium()
    notebook = cells(FORM)
    notebook.metadata = read(PREFLIGHT).metadata
    nbformat.write(notebook, tmp_path / "form.ipynb")

    with lab_server(tmp_path) as url, lab_page(url, {"width": 1000, "height": 900}) as lab:
        show(lab)
        lab.field(0).nth(1).check()
        lab.field(0).nth(4 * 11 + 3).check()
        wait_until("both are taken", lambda: "2 of 12 answered before the course" in lab.text_below(0))
        lab.page.screenshot(path=tmp_path / "form.png")
        assert lab.page.locator("label:has(input[type=radio])").evaluate_all(BADLY_SET) == []
        lab.page.set_viewport_size({"width": 640, "height": 900})
        assert lab.page.locator("label:has(input[type=radio])").evaluate_all(CUT_OFF) == []
        assert (lab.errors(), lab.outside, lab.complaints) == ([], [], [])

        show(lab)
        chosen = [number for number in range(lab.field(0).count()) if lab.field(0).nth(number).is_checked()]

        assert chosen == [1, 47]
    assert json.loads((tmp_path / KEPT_IN).read_text())["pre"] == {"rush_hour": "B", "thirty_parts": "D"}
