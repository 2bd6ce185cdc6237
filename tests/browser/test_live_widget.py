"""The live view in JupyterLab: it moves while a cell awaits, and is complete after a restart and after a reload.

Part of ``pytest -m course``.
"""

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from overload_demo.lab.result import SpikeResult
from overload_demo.live.feed import NOT_KNOWN
from tests.browser.lab import LabPage, lab_page, lab_server
from tests.browser.live import COLUMN
from tests.browser.tab import chromium
from tests.notebooks.kernels import cells
from tests.support.waiting import wait_until

pytestmark = pytest.mark.course

NAME = "live.ipynb"
START = """
from overload_demo.lab import SpikePlan, Stack, run_spike
from overload_demo.live import Dashboard
stack = await Stack.start(placement="process", processing_delay_s=0.004)
live = Dashboard("A spike")
live
"""
RUN = """
result = await run_spike(stack, SpikePlan(3_000, 300, baseline="none"), live=live)
(result.verdict, result.accepted, result.lost, f"dashboard: {result.conditions.dashboard}")
"""
STOP = "await stack.stop()"
VIEW, SPIKE = 0, 1
TEXTS = 40  # above the view: JupyterLab makes the output of a cell far below before it attaches the cell
RESULT = "Absorbed: 3,000 of 3,000 accepted, 0 lost."
END = "('absorbed', 3000, 0, 'dashboard: on')"


@pytest.fixture
def texts() -> int:
    """How many cells with text stand above the view."""
    return 0


@pytest.fixture
def lab(tmp_path: Path, texts: int) -> Iterator[LabPage]:
    """JupyterLab with a small notebook and its side bar open, in a window of a projector's size."""
    chromium()
    notebook = cells(START, RUN, STOP)
    notebook.cells[:0] = [nbformat.v4.new_markdown_cell("Text.") for _ in range(texts)]
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(notebook, tmp_path / NAME)
    with lab_server(tmp_path) as url, lab_page(url, {"width": 1280, "height": 720}) as page:
        page.open(NAME)
        yield page


def curve(lab: LabPage) -> list[float]:
    """The times of the curve of queue depth as it is drawn now; empty without a view."""
    if not lab.evaluate("!!globalThis.Bokeh"):
        return []
    views = lab.evaluate("Bokeh.documents.length")
    drawn: list[float] = lab.evaluate(COLUMN, ["queue", "at_s"]) if views else []
    return drawn


def wait_for_a_moving_curve(lab: LabPage, more_than: int = 3, *, in_mid_spike: bool = True) -> None:
    """While a cell awaits, *lost* is still unknown."""

    def moves() -> bool:
        return (not in_mid_spike or number(lab, "lost") == NOT_KNOWN) and len(curve(lab)) > more_than

    wait_until("the curve moves", lambda: lab.errors() or (shows(lab) and moves()), 60.0)
    assert lab.errors() == []


def wait_for_the_end(lab: LabPage) -> None:
    wait_until("the result is shown", lambda: lab.errors() or (shows(lab) and RESULT in result(lab)), 60.0)
    assert lab.errors() == []
    assert (number(lab, "accepted"), number(lab, "depth"), number(lab, "lost")) == ("3,000", "0", "0")


def shows(lab: LabPage) -> bool:
    """Whether there is a view."""
    return lab.cell(VIEW).locator("dd").count() > 0


def result(lab: LabPage) -> str:
    """The line below the charts."""
    return lab.cell(VIEW).locator('[data-state="result"]').inner_text()


def number(lab: LabPage, name: str) -> str:
    """The text of a tile of the view."""
    return lab.cell(VIEW).locator(f'dd[data-number="{name}"]').inner_text()


def test_the_view_moves_while_a_cell_awaits_and_is_complete_after_a_reload_and_a_restart(
    lab: LabPage, tmp_path: Path
) -> None:
    lab.restart_and_run_all()
    wait_for_a_moving_curve(lab)
    lab.cell(VIEW).scroll_into_view_if_needed()
    lab.page.screenshot(path=tmp_path / "during.png")
    *before, _ = curve(lab)

    lab.save()
    lab.open(NAME, expect_idle=False)
    wait_for_a_moving_curve(lab, len(before), in_mid_spike=False)  # a reload may take longer than the spike
    assert curve(lab)[: len(before)] == before, "a page loaded again has the whole curve"
    wait_for_the_end(lab)
    lab.cell(VIEW).scroll_into_view_if_needed()
    lab.page.screenshot(path=tmp_path / "reloaded.png")
    assert lab.cut_off() == []

    lab.restart_and_run_all()
    wait_for_a_moving_curve(lab)
    wait_for_the_end(lab)
    wait_until("all cells have run", lambda: lab.prompts() == ["[1]:", "[2]:", "[3]:"])
    assert END in lab.text_below(SPIKE)
    for path in tmp_path.rglob("result.json"):
        assert SpikeResult.read(path).conditions.dashboard == "on"
    assert lab.outside == [], "no request leaves this machine"
    assert lab.complaints == [], "no script of the page has failed"


@pytest.mark.parametrize("texts", [TEXTS])
def test_a_view_far_below_is_complete_after_a_reload(lab: LabPage) -> None:
    lab.restart_and_run_all()
    wait_for_a_moving_curve(lab)

    lab.save()
    lab.open(NAME, expect_idle=False)
    lab.cell(VIEW).scroll_into_view_if_needed()

    wait_until("the result is shown", lambda: shows(lab) and RESULT in result(lab), 60.0)
    assert len(curve(lab)) > 3
    assert lab.complaints == [], "no script of the page has failed"
