"""The notebook in a real JupyterLab in Chromium. Part of ``pytest -m course``."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.browser.lab import KERNEL_IS_IDLE, LabPage, lab_page, lab_server
from tests.browser.tab import chromium
from tests.notebooks.kernels import SPIKE, processes_of, read
from tests.support.waiting import wait_until

pytestmark = pytest.mark.course

CODE = [cell.source for cell in read(SPIKE).cells if cell.cell_type == "code"]
RUN = [f"[{number}]:" for number in range(1, len(CODE) + 1)]
PEAK_CELL, SPIKE_CELL, FIGURE_CELL = (
    next(number for number, source in enumerate(CODE) if call in source)
    for call in ('"04.peak"', "run_spike(", "plots.spike(")
)
EMPTY_CELL = PEAK_CELL + 1


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabPage]:
    """JupyterLab in a browser tab with a copy of the notebook before it."""
    chromium()
    shutil.copy(SPIKE, tmp_path)
    with lab_server(tmp_path) as url, lab_page(url) as page:
        page.open(SPIKE.name)
        yield page


def wait_for_the_end(lab: LabPage) -> None:
    wait_until("all cells have run", lambda: lab.prompts() == RUN or lab.errors(), 60.0)


def wait_for_mid_spike(lab: LabPage) -> None:
    wait_until("the spike is under way", lambda: lab.accepted(SPIKE_CELL) > 100 or lab.errors(), 60.0)
    assert lab.errors() == []


def assert_absorbed(lab: LabPage) -> None:
    assert lab.errors() == []
    assert lab.prompts() == RUN
    assert "accepted 1,000   errors none" in lab.outputs()
    assert "lost 0   duplicated 0" in lab.outputs()
    assert "ABSORBED: 1,000 of 1,000 accepted, 0 lost, 0 duplicated" in lab.outputs()


def running(folder: Path, module: str) -> list[psutil.Process]:
    return [process for process in processes_of(folder) if module in process.cmdline()]


def test_a_students_prediction_is_kept_and_drawn_onto_the_spike_it_was_made_for(lab: LabPage, tmp_path: Path) -> None:
    lab.restart_and_run_all()
    wait_until("the bars move", lambda: lab.accepted(SPIKE_CELL) > 0 or lab.errors(), 40.0)
    lab.cell(SPIKE_CELL).scroll_into_view_if_needed()
    assert lab.cell(SPIKE_CELL).locator(".jp-OutputArea-output").first.is_visible()
    lab.page.screenshot(path=tmp_path / "during.png")
    wait_for_the_end(lab)
    assert_absorbed(lab)
    lab.screenshot_of_each_cell(tmp_path)

    assert lab.text_below(SPIKE_CELL).count("1000/1000") == 2, "both bars end full"
    assert "reconciling" not in lab.text_below(SPIKE_CELL), "without the step that has ended"
    image = lab.cell(FIGURE_CELL).locator(".jp-OutputArea-output figure img")
    assert "1,000 of 1,000 requests were accepted" in (image.get_attribute("alt") or "")
    assert image.evaluate("image => image.complete && image.naturalWidth > 500")
    assert lab.cut_off() == [], "no output is wider than its place"
    assert lab.outputs().count("not done.") == 5, "exercises do not stop a run"

    lab.type_into_field(PEAK_CELL, "1,234")
    wait_until("it is taken", lambda: "your prediction: 1,234 jobs" in lab.text_below(PEAK_CELL))
    lab.type_into_field(EMPTY_CELL, "soon")
    wait_until("the reason is shown", lambda: "'soon' is not read as a number" in lab.text_below(EMPTY_CELL))
    lab.run_cell(FIGURE_CELL)
    wait_until("it is drawn", lambda: "A peak of 1,234 jobs was predicted" in (image.get_attribute("alt") or ""))
    lab.run_cell(PEAK_CELL)
    wait_until("the field still has it", lambda: lab.field(PEAK_CELL).input_value() == "1,234")

    assert lab.outside == [], "no request leaves this machine"
    assert lab.complaints == [], "no script of the page has failed"


def test_the_stop_button_ends_a_spike_and_a_reloaded_page_can_run_it_again(lab: LabPage) -> None:
    lab.type_into(0, "requests, rate_per_s, delay_s, naive, patience_s, few = 3_000, 300, 0.001, 'none', 60, 300")
    lab.start("notebook:run-all-cells")
    wait_for_mid_spike(lab)

    lab.page.click('[data-command="notebook:interrupt-kernel"], [title^="Interrupt"]')
    wait_until("the cell has ended", lambda: lab.errors(), 20.0)
    assert all("Stopped (■)" in error and len(error.splitlines()) == 2 for error in lab.errors())
    wait_until("the rest of Run All is refused", lambda: not lab.page.locator(".jp-InputPrompt", has_text="*").count())
    lab.page.wait_for_function(KERNEL_IS_IDLE)

    lab.run_cell(SPIKE_CELL)
    wait_until("it runs again", lambda: lab.accepted(SPIKE_CELL) > 100, 40.0)
    lab.open(SPIKE.name, expect_idle=False)
    lab.type_into(0, "requests, rate_per_s, delay_s, naive, patience_s, few = 300, 300, 0.001, 'none', 60, 300")
    lab.start("notebook:run-all-cells")
    wait_until("it is absorbed", lambda: "ABSORBED: 300 of 300 accepted, 0 lost" in lab.outputs(), 60.0)
    assert lab.errors() == []


def test_a_kernel_killed_in_mid_spike_leaves_no_process(lab: LabPage, tmp_path: Path) -> None:
    lab.type_into(0, "requests, rate_per_s, delay_s, naive, patience_s, few = 40_000, 400, 0.001, 'none', 60, 300")
    lab.start("notebook:run-all-cells")
    wait_for_mid_spike(lab)
    [kernel] = running(tmp_path, "ipykernel_launcher")
    spike = {*running(tmp_path, "overload_demo.load.sender"), *running(tmp_path, "overload_demo.store")}
    assert len(spike) >= 2

    kernel.kill()

    wait_until("load and store are gone", lambda: not any(process.is_running() for process in spike), 20.0)
    wait_until("JupyterLab has started another kernel", lambda: set(running(tmp_path, "ipykernel_launcher")) - {kernel})


def test_in_ci_a_missing_chromium_is_a_failure_and_elsewhere_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        chromium()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        chromium()
