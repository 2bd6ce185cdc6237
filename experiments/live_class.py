"""A class played through on the live page, in a real Chromium: ``python -m experiments.live_class``.

Starts the live page (``python -m overload_demo.live --control``), presses its buttons as an instructor does, and keeps
a picture of each act. Needs playwright and a Chromium on PATH; takes about four minutes.
"""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

import typer
from playwright.sync_api import Page, sync_playwright

from experiments.bench.record import RESULTS, Facts, Place, markdown_table
from overload_demo.console import one_line_errors
from overload_demo.errors import OverloadDemoError

FILE, PICTURE = RESULTS / "live_class.json", RESULTS / "live_class.png"
PICTURED = "store frozen"
ACT_WITHIN_S = 120.0


class Step(Facts):
    """One act and the page's result line; ``lasted_s`` is from the click to the result."""

    name: str
    result: str
    lasted_s: float


class LiveClass(Facts):
    """A class; ``ready_s`` is from the command to the address, ``reset_s`` from the click on Reset to ready."""

    place: Place
    ready_s: float
    reset_s: float
    steps: list[Step]

    @classmethod
    def recorded(cls) -> Self:
        """Read the recorded class."""
        return cls.model_validate_json(FILE.read_bytes())


def class_block(one: LiveClass) -> str:
    """Return the recorded class as a table for the lecture guide."""
    place = one.place
    rows = [(step.name, f"{step.lasted_s:,.0f} s", step.result) for step in one.steps]
    note = (
        f"Ready {one.ready_s:,.0f} s after the command, calibration included; back to zero in {one.reset_s:,.1f} s. "
        f"{place.recorded}; {place.where}; a browser without a graphics card ran on the same cores."
    )
    return f"{markdown_table(('act', 'lasts', 'the page showed'), rows)}\n\n{note}"


class Instructor:
    """Presses buttons and reads the page."""

    def __init__(self, page: Page, pictures: Path) -> None:
        self._page, self._pictures = page, pictures
        self.steps: list[Step] = []

    def press(self, button: str) -> None:
        """Press a control, and wait until the page shows the effect."""
        before = self._status()
        self._page.click(f'[data-do="{button}"]')
        while before == "over" == self._status():
            self._page.wait_for_timeout(50)

    def predict(self) -> None:
        """Enter the two predictions that follow from a drain rate of 1 ÷ delay and the load shown on the page."""
        shown = re.findall(r"[\d,.]+", self._page.inner_text('[data-state="title"]'))
        requests, rate_per_s, delay_ms = (float(number.replace(",", "")) for number in shown)
        drains_per_s = 1000 / delay_ms
        self._page.fill('[name="peak"]', str(round((rate_per_s - drains_per_s) * requests / rate_per_s)))
        self._page.fill('[name="empty_s"]', str(round(requests / drains_per_s)))

    def picture(self, name: str) -> None:
        """Save a picture of the page."""
        self._page.screenshot(path=self._pictures / f"{name.replace(' ', '_')}.png")

    def wait_for(self, status: str) -> float:
        """Wait until the page shows the status; return the seconds that it took."""
        began = time.monotonic()
        while self._status() != status:
            if time.monotonic() - began > ACT_WITHIN_S:
                raise OverloadDemoError(f"the page did not show {status!r} within {ACT_WITHIN_S:g} s")
            self._page.wait_for_timeout(50)
        return round(time.monotonic() - began, 1)

    def act(self, name: str, button: str, meanwhile: tuple[tuple[str, float], ...] = ()) -> None:
        """Play one act to its end; ``meanwhile`` are further buttons and the pause after each, seconds."""
        began = time.monotonic()
        self.press(button)
        for other, seconds in meanwhile:
            if other:
                self.press(other)
            self._page.wait_for_timeout(seconds * 1000)
        self.wait_for("over")
        self.picture(name)
        result = self._page.inner_text('[data-state="result"]')
        self.steps.append(Step(name=name, result=result, lasted_s=round(time.monotonic() - began, 1)))

    def _status(self) -> str:
        return self._page.inner_text('[data-state="status"]')


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[tuple[str, float]]:
    """Run the live page; yield its address and the seconds until it was printed."""
    began = time.monotonic()
    command = [sys.executable, "-m", "overload_demo.live", "--control"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http\S+", line):
                    yield found[0], round(time.monotonic() - began, 1)
                    return
            raise OverloadDemoError("the live page did not start")
        finally:
            process.terminate()


def play(pictures: Path) -> LiveClass:
    """Play the whole class, with a picture of each act in ``pictures``."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise OverloadDemoError("no chromium on PATH")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver, stage(Path(folder)) as (url, ready_s):
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(url)
        one = Instructor(page, pictures)
        one.wait_for("ready")
        one.picture("ready")
        one.predict()
        one.act("without a queue", "naive")
        one.act("with a queue", "spike")
        one.press("reset")
        reset_s = one.wait_for("ready")
        one.act("without a queue again", "naive")
        one.act(PICTURED, "spike", (("", 9), ("kill", 5), ("restart", 6), ("freeze", 6)))
        one.act("all at once", "at_once")
        browser.close()
        place = Place.here("experiments.live_class", Path(folder)).model_copy(update={"dashboard": "on"})
    return LiveClass(place=place, ready_s=ready_s, reset_s=reset_s, steps=one.steps)


def main(
    pictures: Annotated[Path, typer.Option(help="Folder for a picture of each act.")] = Path("runs/live_class"),
    record: Annotated[bool, typer.Option(help="Write the recorded result and its picture.")] = False,
) -> None:
    """Play a class through on the live page, and keep pictures of it."""
    with one_line_errors():
        pictures.mkdir(parents=True, exist_ok=True)
        seen = play(pictures)
        print(seen.model_dump_json(indent=1))
        if record:
            FILE.write_text(seen.model_dump_json(indent=1) + "\n")
            shutil.copy(pictures / f"{PICTURED.replace(' ', '_')}.png", PICTURE)


if __name__ == "__main__":
    typer.run(main)
