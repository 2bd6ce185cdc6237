"""A class played through on the live page, in a real Chromium: ``python -m experiments.live_class``.

Opens the stage as an instructor does (``python -m overload_demo.live --control``), presses its buttons, and keeps
a picture of each step: the naive API collapses, the spike is absorbed, the worker is killed, the store is frozen. One
of the pictures is the README's. Needs playwright and a Chromium on PATH; takes about four minutes.
"""

import contextlib
import json
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
from pydantic import BaseModel, ConfigDict, ValidationError

from experiments.bench.record import RESULTS, Place
from overload_demo.console import one_line_errors
from overload_demo.errors import OverloadDemoError

FILE = RESULTS / "live_class.json"
PICTURE = RESULTS / "live_class.png"
PICTURED = "store frozen"
FLAGS = ["--no-sandbox", "--disable-gpu"]
ACT_WITHIN_S = 120.0


class Step(BaseModel):
    """One step as the page told it; ``lasted_s`` from the click to the result."""

    model_config = ConfigDict(frozen=True)

    name: str
    result: str
    lasted_s: float


class LiveClass(BaseModel):
    """What a class saw. ``ready_s`` is from the command to the address, ``reset_s`` from the click to ready."""

    model_config = ConfigDict(frozen=True)

    place: Place
    ready_s: float
    reset_s: float
    steps: list[Step]

    @classmethod
    def recorded(cls) -> Self:
        """The recorded class. Raises :class:`OverloadDemoError` when there is none, or it cannot be read."""
        try:
            return cls.model_validate_json(FILE.read_bytes())
        except (OSError, ValidationError) as error:
            raise OverloadDemoError(f"no recorded class in {FILE.name}: {error}") from None


def told(seen: LiveClass) -> str:
    """The class as the guide tells it: a table, and where it was."""
    place = seen.place
    rows = [f"| {step.name} | {step.lasted_s:,.0f} s | {step.result} |" for step in seen.steps]
    return "\n".join(
        [
            "| act | lasts | the page said |",
            "|---|---|---|",
            *rows,
            "",
            f"Ready {seen.ready_s:,.0f} s after the command, with measuring the machine; back to zero in"
            f" {seen.reset_s:,.1f} s. `{place.command}`, recorded {place.recorded_at[:10]};"
            f" {place.environment.cores} cores, Python {place.environment.python}, {place.filesystem};"
            " a browser that draws without a graphics card ran on the same cores.",
        ]
    )


class Instructor:
    """Presses buttons and looks at what the page says."""

    def __init__(self, page: Page, pictures: Path) -> None:
        self._page, self._pictures = page, pictures
        self.steps: list[Step] = []

    def press(self, button: str) -> None:
        """Press a control, and wait until the page has seen what it did."""
        before = self._status()
        self._page.click(f'[data-do="{button}"]')
        while before == "over" == self._status():
            self._page.wait_for_timeout(50)

    def _status(self) -> str:
        return self._page.inner_text('[data-state="status"]')

    def predict(self) -> None:
        """Enter the two numbers of a class that takes 1 ÷ delay for the drain rate, from what the page tells it."""
        told = re.findall(r"[\d,.]+", self._page.inner_text('[data-state="title"]'))
        requests, rate_per_s, delay_ms = (float(number.replace(",", "")) for number in told)
        drains_per_s = 1000 / delay_ms
        self._page.fill('[name="peak"]', str(round((rate_per_s - drains_per_s) * requests / rate_per_s)))
        self._page.fill('[name="empty_s"]', str(round(requests / drains_per_s)))

    def picture(self, name: str) -> Path:
        """Keep what is on the page."""
        path = self._pictures / f"{name.replace(' ', '_')}.png"
        self._page.screenshot(path=path)
        return path

    def wait_for(self, status: str) -> float:
        """Wait until the page says so; returns after how many seconds."""
        began = time.monotonic()
        while self._status() != status:
            if time.monotonic() - began > ACT_WITHIN_S:
                raise OverloadDemoError(f"the page did not come to {status!r} within {ACT_WITHIN_S:g} s")
            self._page.wait_for_timeout(50)
        return round(time.monotonic() - began, 1)

    def act(self, name: str, button: str, meanwhile: list[tuple[str, float]] | None = None) -> None:
        """One act to its end; ``meanwhile`` are buttons and how long to look after each, seconds."""
        began = time.monotonic()
        self.press(button)
        for other, seconds in meanwhile or []:
            if other:
                self.press(other)
            self._page.wait_for_timeout(seconds * 1000)
        self.wait_for("over")
        self.picture(name)
        result = self._page.inner_text('[data-state="result"]')
        self.steps.append(Step(name=name, result=result, lasted_s=round(time.monotonic() - began, 1)))


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[tuple[str, float]]:
    """The stage's command for the length of the block; yields the page's address and after how long it was there."""
    began = time.monotonic()
    command = [sys.executable, "-m", "overload_demo.live", "--control"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http\S+", line):
                    yield found[0], round(time.monotonic() - began, 1)
                    return
            raise OverloadDemoError("the stage did not start")
        finally:
            process.terminate()


def attend(pictures: Path) -> LiveClass:
    """Play the whole class; what the page said, and a picture of each step in ``pictures``."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise OverloadDemoError("no chromium on PATH")
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        stage(Path(folder)) as (url, ready_s),
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
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
        one.act(PICTURED, "spike", [("", 9), ("kill", 5), ("restart", 6), ("freeze", 6)])
        one.act("all at once", "at_once")
        browser.close()
        place = Place.here("experiments.live_class", Path(folder)).model_copy(update={"dashboard": "on"})
    return LiveClass(place=place, ready_s=ready_s, reset_s=reset_s, steps=one.steps)


def main(
    pictures: Annotated[Path, typer.Option(help="Where a picture of each step is kept.")] = Path("runs/live_class"),
    record: Annotated[bool, typer.Option(help="Write the recorded result and its picture.")] = False,
) -> None:
    """Play a class through on the live page, and keep pictures of it."""
    with one_line_errors():
        pictures.mkdir(parents=True, exist_ok=True)
        seen = attend(pictures)
        print(json.dumps(seen.model_dump(), indent=1))
        if record:
            FILE.write_text(seen.model_dump_json(indent=1) + "\n")
            shutil.copy(pictures / f"{PICTURED.replace(' ', '_')}.png", PICTURE)


if __name__ == "__main__":
    typer.run(main)
