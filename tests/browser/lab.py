"""A real JupyterLab in a real Chromium: start both, open a notebook, run it, read its outputs."""

import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Locator, Page, ViewportSize

from tests.browser.tab import Tab, running_chromium
from tests.notebooks.kernels import environment, no_process_left
from tests.support.running import free_port
from tests.support.waiting import wait_until

TOKEN = "a-token-of-the-tests"
APPS = {"jupyterlab": "LabApp", "notebook": "JupyterNotebookApp"}
NEWS = "@jupyterlab/apputils-extension:announcements"
KERNEL_IS_CONNECTED = (
    "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus === 'connected'"
)
SET_SOURCE = """([number, source]) => {
  const code = jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === "code");
  code[number].model.sharedModel.setSource(source);
}"""
KERNEL_IS_IDLE = "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


@contextlib.contextmanager
def lab_server(folder: Path, level: str = "test", module: str = "jupyterlab") -> Iterator[str]:
    """JupyterLab with the notebooks of ``folder``, its own directories and nothing of the user's; yields its URL.

    ``module`` "notebook" is Jupyter Notebook 7 instead.
    """
    without_news(folder)
    port = free_port()
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": TOKEN,
        f"{APPS[module]}.expose_app_in_browser": True,
    }
    command = [sys.executable, "-m", module, "--no-browser", *(f"--{name}={it}" for name, it in options.items())]
    url = f"http://127.0.0.1:{port}"
    with no_process_left(folder), (folder / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment(folder, level), stdout=log, stderr=log)
        try:
            wait_until("JupyterLab answers", lambda: server.poll() is not None or answers(f"{url}/api"), 40.0)
            assert server.poll() is None, (folder / "lab.log").read_text()
            yield url
        finally:
            server.terminate()
            server.wait(30)


def without_news(folder: Path) -> None:
    """Turn off the pop-up that offers news: it covers a corner of the page."""
    settings = folder / "jupyter" / "config_dir" / "labconfig"
    settings.mkdir(parents=True)
    (settings / "page_config.json").write_text(json.dumps({"disabledExtensions": {NEWS: True}}))


def answers(url: str) -> bool:
    """Whether a server answers 200."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


class LabPage(Tab):
    """A browser tab with JupyterLab in it."""

    def __init__(self, page: Page, url: str, *, place: str = "lab/tree", token: str = TOKEN) -> None:
        super().__init__(page)
        self._url, self._place, self._token = url, place, f"&token={token}" * bool(token)

    def open(self, notebook: str, *, expect_idle: bool = True) -> None:
        """Open a notebook, or load the page again, and wait for its kernel: until it is idle, or at least connected."""
        self.page.goto(f"{self._url}/{self._place}/{notebook}?reset{self._token}")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=40_000)
        self.page.wait_for_function(KERNEL_IS_IDLE if expect_idle else KERNEL_IS_CONNECTED, timeout=40_000)

    def start(self, command: str) -> None:
        """Begin a command of JupyterLab without waiting for its end."""
        self.page.evaluate("command => { jupyterapp.commands.execute(command) }", command)

    def save(self) -> None:
        """Write the notebook, outputs and all, to its file."""
        self.page.evaluate("jupyterapp.commands.execute('docmanager:save')")

    def restart_and_run_all(self) -> None:
        """*Restart Kernel and Run All Cells*, confirmed."""
        self.start("notebook:restart-run-all")
        self.page.click(".jp-Dialog .jp-mod-warn")

    def cell(self, number: int) -> Locator:
        """The code cell of that number, from 0."""
        return self.page.locator(".jp-CodeCell").nth(number)

    def type_into(self, number: int, source: str) -> None:
        """Replace the source of a code cell (in the tab, never in the file)."""
        self.page.evaluate(SET_SOURCE, [number, source])

    def run_cell(self, number: int) -> None:
        """Run one cell, like Ctrl-Enter in it, without waiting for its end."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def field(self, number: int) -> Locator:
        """The input field that a widget shows below a code cell."""
        return self.cell(number).locator(".jp-OutputArea-output input")

    def type_into_field(self, number: int, text: str) -> None:
        """Fill a widget's field and leave it."""
        self.field(number).fill(text)
        self.field(number).press("Tab")

    def text_below(self, number: int) -> str:
        """The text of a code cell's outputs."""
        return "\n".join(self.cell(number).locator(".jp-OutputArea-output").all_text_contents())

    def accepted(self, number: int) -> int:
        """The text of the first progress bar below a code cell."""
        found = re.search(r"(\d+)/\d+", self.text_below(number))
        return int(found[1]) if found else 0

    def cut_off(self) -> list[str]:
        """The text of outputs that are wider than they are shown."""
        script = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.textContent)"
        cut: list[str] = self.page.locator(".jp-OutputArea-output, .jp-OutputArea-output pre").evaluate_all(script)
        return cut

    def screenshot_of_each_cell(self, folder: Path) -> None:
        """``cell-0.png`` and so on: the tab scrolled to each code cell."""
        for number in range(self.page.locator(".jp-CodeCell").count()):
            self.cell(number).scroll_into_view_if_needed()
            self.page.screenshot(path=folder / f"cell-{number}.png")

    def prompts(self) -> list[str]:
        """The execution counts of the code cells, e.g. ``[1]:``; ``[*]:`` for one that waits or runs."""
        return self._texts(".jp-CodeCell .jp-InputPrompt")

    def outputs(self) -> str:
        """The text of all outputs; never that of the sources."""
        return "\n".join(self._texts(".jp-OutputArea-output"))

    def errors(self) -> list[str]:
        """Outputs that are errors or went to stderr."""
        selector = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{}"]'
        return [text for kind in ("error", "stderr") for text in self._texts(selector.format(kind))]

    def _texts(self, selector: str) -> list[str]:
        script = "selector => [...document.querySelectorAll(selector)].map(one => one.textContent)"
        found: list[str] = self.page.evaluate(script, selector)
        return found


@contextlib.contextmanager
def lab_page(url: str, size: ViewportSize | None = None) -> Iterator[LabPage]:
    """A tab of a fresh, headless Chromium."""
    with running_chromium() as browser:
        yield LabPage(browser.new_page(viewport=size or {"width": 1280, "height": 900}), url)
