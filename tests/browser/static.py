"""A static page in a real Chromium: no request, no script, nothing that axe finds, no text of a widget."""

import os
import re
import shutil
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe

from tests.browser.tab import Tab, running_chromium

STRAY = re.compile(r"object at 0x|\w+\(children=|Box\(|widget-(?:view|state)|cdn|<script", re.IGNORECASE)


def assert_a_static_page_needs_nothing(html: str, folder: Path) -> None:
    """Check the text, and the page in Chromium, unless there is none outside CI."""
    assert STRAY.findall(re.sub(r"data:image/png;base64,[^\"]+", "", html)) == []
    assert re.findall(r"<img (?![^>]*alt=\"[^\"]+\")", html) == [], "each figure has a text"
    if shutil.which("chromium") is None and os.environ.get("CI") != "true":
        return
    path = folder / "page.html"
    path.write_text(html)
    with running_chromium() as browser:
        tab, requests = Tab(browser.new_page()), list[str]()
        tab.page.on("request", lambda request: requests.append(request.url))
        tab.page.on("console", lambda message: tab.complaints.append(message.text))
        tab.page.goto(path.as_uri())
        found = Axe().run(tab.page)

        assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
        assert tab.complaints == []
        assert found.violations_count == 0, found.generate_report()
