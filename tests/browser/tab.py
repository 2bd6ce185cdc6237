"""One tab of a real Chromium, and the errors it has reported."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--no-first-run",
    *(f"--disable-{name}" for name in ("gpu", "quic", "sync", "background-networking", "component-update")),
]


def chromium() -> str:
    """The path of Chromium; without it the test is skipped, and fails in CI."""
    found = next(filter(None, map(shutil.which, ("/usr/bin/chromium", "chromium"))), None)
    if found is None:
        reason = "no Chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextlib.contextmanager
def running_chromium(*flags: str) -> Iterator[Browser]:
    """A fresh, headless Chromium."""
    path = chromium()
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags]) as browser,
    ):
        yield browser


OF_A_RESTART = "Canceled future for "  # JupyterLab's own: a request to a kernel that restarts


class Tab:
    """A page of a browser; ``outside`` has the requests to other machines, ``complaints`` the errors."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.outside: list[str] = []
        self.complaints: list[str] = []
        page.on("request", self._note_request)
        page.on("pageerror", lambda error: OF_A_RESTART in str(error) or self.complaints.append(str(error)))

    def evaluate(self, script: str, *argument: object) -> Any:
        """The value of a piece of JavaScript."""
        return self.page.evaluate(script, *argument)

    def _note_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            self.outside.append(request.url)
