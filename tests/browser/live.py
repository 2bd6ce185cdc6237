"""The live page in a tab of a real Chromium."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage
from playwright.sync_api import Page as BrowserPage

from tests.browser.tab import Tab
from tests.support.waiting import wait_until

PANELS = ("latency", "depth", "rates")
CONSOLE_OF_A_REFUSAL = "the server responded with a status of 4"  # Chromium writes one line for each; not an error
COLUMN = """([source, column]) => {
  const found = Bokeh.documents.map(one => one.get_model_by_name(source)).filter(Boolean);
  return found.length ? Array.from(found.at(-1).data[column]) : [];
}"""
SOURCES = """() => Bokeh.documents.flatMap(one => ["queue", "naive"].map(name => one.get_model_by_name(name)))
  .filter(Boolean).map(source => source.get_length())"""
CLIPPED = """() => [...document.querySelectorAll("main, header, header *, dl *, .result, form, form *, figure")]
  .filter(one => one.offsetParent && (one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0
    || one.getBoundingClientRect().right > innerWidth + 1 || one.getBoundingClientRect().left < -1))
  .map(one => one.outerHTML.slice(0, 80))"""


class LiveTab(Tab):
    """A tab with the live page in it."""

    def __init__(self, page: BrowserPage, address: str) -> None:
        super().__init__(page)
        page.on("console", self._note_console)
        page.goto(address)
        self.wait_until_drawn()

    def wait_until_drawn(self) -> None:
        """Return when every panel has its drawing and the stream has begun."""
        drawn = "() => globalThis.Bokeh?.documents.length === 3 && document.querySelector('h1').textContent"
        self.page.wait_for_function(drawn, timeout=20_000)

    def column(self, source: str, column: str) -> list[float]:
        """A column of a source of the figure, as it is drawn now."""
        found: list[float] = self.evaluate(COLUMN, [source, column])
        return found

    def texts(self, source: str) -> list[str]:
        """The texts of a source, e.g. of the marks, without the lines that lift some of them."""
        found: list[str] = self.evaluate(COLUMN, [source, "text"])
        return [text.strip() for text in found]

    def curve(self, source: str, column: str) -> list[tuple[float, float]]:
        """Time and value of a curve, gaps left out."""
        pairs = zip(self.column(source, "at_s"), self.column(source, column), strict=False)
        return [(at_s, value) for at_s, value in pairs if not math.isnan(value)]

    def number(self, name: str) -> str:
        """The text of a tile."""
        return self.page.locator(f'dd[data-number="{name}"]').inner_text()

    def state(self, name: str) -> str:
        """A text of the page's state: title, badge, status or result."""
        return self.page.locator(f'[data-state="{name}"]').inner_text()

    def press(self, order: str) -> None:
        """Click one of the controls."""
        self.page.click(f'[data-do="{order}"]')

    def note(self) -> str:
        """The reason why an order was refused."""
        return self.page.locator("[data-note]").inner_text()

    def wait_for(self, description: str, script: str, timeout_s: float = 20.0) -> None:
        """Wait until a piece of JavaScript is true."""
        wait_until(description, lambda: self.evaluate(script), timeout_s)

    def overflow(self) -> list[str]:
        """The elements that are wider than their place or outside the window."""
        found: list[str] = self.evaluate(CLIPPED)
        wide = self.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        return [*found, *(["the page"] if wide else [])]

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and CONSOLE_OF_A_REFUSAL not in message.text:
            self.complaints.append(message.text)


@contextlib.contextmanager
def live_tab(
    browser: Browser, address: str, *, prepare: Callable[[BrowserContext], None] = lambda _: None, **options: Any
) -> Iterator[LiveTab]:
    """The live page in a separate tab, of the size of a projector by default."""
    with browser.new_context(**({"viewport": {"width": 1280, "height": 720}} | options)) as context:
        prepare(context)
        yield LiveTab(context.new_page(), address)
