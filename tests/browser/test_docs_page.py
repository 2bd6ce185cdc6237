"""The page at /docs in Chromium: every example in it can be tried and succeeds, and nothing comes from elsewhere.

Part of ``pytest -m course``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.tab import Tab, running_chromium
from tests.support.running import api_process

pytestmark = pytest.mark.course

KEY = "ada-key-0123456789abcdef"
OPERATIONS = {
    "post_job": "202",
    "get_job": "200",
    "delete_job": "200",
    "get_stats": "200",
    "get_metrics": "200",
    "get_health": "200",
    "get_ready": "200",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all pages."""
    with running_chromium() as one:
        yield one


@contextmanager
def docs(browser: Browser, folder: Path, **variables: object) -> Iterator[Page]:
    """The page of an API, reached through a link; nothing left the machine and the console stayed empty."""
    with api_process(folder, **variables) as (_, client), browser.new_context() as context:
        tab = Tab(context.new_page())
        tab.page.on("console", lambda message: tab.complaints.append(message.text))
        tab.page.goto(f"{client.base_url}/")
        tab.page.get_by_role("link", name="docs").click()
        tab.page.locator(".opblock").first.wait_for()
        yield tab.page
        assert (tab.outside, tab.complaints) == ([], [])


def statuses_of_all(page: Page) -> dict[str, str]:
    """Try every operation as it stands there, from the first to the last."""
    found = {}
    for block in page.locator(".opblock").all():
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        status = block.locator(".live-responses-table tbody .response-col_status").first
        found[(block.get_attribute("id") or "").removeprefix("operations-default-")] = status.inner_text()
    return found


def test_every_example_succeeds_in_order(browser: Browser, tmp_path: Path) -> None:
    with docs(browser, tmp_path) as page:
        assert page.locator(".authorize").count() == 0
        assert statuses_of_all(page) == OPERATIONS


def test_where_keys_are_set_one_can_be_entered_and_every_example_succeeds(browser: Browser, tmp_path: Path) -> None:
    with docs(browser, tmp_path, OVERLOAD_API_KEYS=KEY) as page:
        page.locator(".btn.authorize").click()
        page.locator("#auth-bearer-value").fill(KEY)
        page.get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close").click()

        assert statuses_of_all(page) == OPERATIONS
