"""A vote on the live page in Chromium: entered with the keyboard, readable on a projector, the same for every viewer.

Part of ``pytest -m course``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.browser.live import LiveTab, live_tab
from tests.browser.tab import running_chromium
from tests.support.stages import Staged, on_stage
from tests.support.waiting import wait_until

pytestmark = pytest.mark.course

SCHEMES = ("light", "dark")
RESULT = "Absorbed: 100,000 of 100,000 accepted, 0 lost. Peak 70,594 (predicted 50,000, -29%). Empty after 65 s."


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; each has fresh tabs."""
    with running_chromium() as one:
        yield one


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Staged]:
    """A stage after an act; its stack does not run."""
    with on_stage(tmp_path, is_running=False) as staged:
        staged.feed.show(title="The spike, with a queue", result=RESULT, status="over")
        yield staged


def fill_hands(tab: LiveTab, *hands: str) -> None:
    """Type into the fields from the first one on, with the keyboard alone."""
    wait_until("the first field has the focus", lambda: tab.evaluate("document.activeElement.ariaLabel") is not None)
    for text in hands:
        tab.page.keyboard.type(text)
        tab.page.keyboard.press("Tab")


def press_with_keyboard(tab: LiveTab, step: str) -> None:
    """Go to a button by Tab and press it."""
    for _ in range(20):
        if tab.evaluate("document.activeElement.dataset.vote") == step:
            return tab.page.keyboard.press("Enter")
        tab.page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {step}")


def hands(tab: LiveTab, count: str) -> list[str]:
    """The numbers of a count beside the open question."""
    return tab.page.locator(f'li:not([hidden]) [data-hands="{count}"]').all_text_contents()


def test_a_class_votes_twice_by_keyboard_and_both_counts_stay_beside_the_result(
    browser: Browser, stage: Staged
) -> None:
    with live_tab(browser, stage.address) as tab, live_tab(browser, stage.address_without_token) as other:
        tab.page.select_option('[name="question"]', "naive")
        press_with_keyboard(tab, "ask")
        fill_hands(tab, "12", "twelve", "9")
        press_with_keyboard(tab, "first")
        wait_until("the reason is shown", lambda: tab.note() == "B: 'twelve' is not a number of hands from 0 to 10,000")
        fields = tab.page.locator("li input")
        assert [fields.nth(at).input_value() for at in range(4)] == ["12", "twelve", "9", ""], "nothing typed is lost"

        fields.nth(1).fill("41")
        press_with_keyboard(tab, "first")
        wait_until("it is counted", lambda: hands(tab, "first") == ["12", "41", "9", "0"])
        fill_hands(tab, "2", "14", "46")
        press_with_keyboard(tab, "second")
        for one in (tab, other):
            wait_until("it is counted", lambda one=one: hands(one, "second") == ["2", "14", "46", "0"])
        assert "✓" not in other.page.locator("ol").inner_text(), "the answer is not known yet"
        assert not other.page.locator("li input").first.is_visible()

        press_with_keyboard(tab, "answer")
        wait_until("it is shown", lambda: "Right answers: 15 %, then 74 %." in other.page.inner_text("[data-advice]"))
        press_with_keyboard(tab, "close")
        image = other.page.locator('.vote [role="img"]')
        wait_until("the histograms are beside the result", image.is_visible)
        label = "First count: A 12, B 41, C 9, D 0. Second count: A 2, B 14, C 46, D 0. Right answers: 15 %, then 74 %."
        assert label in (image.get_attribute("aria-label") or "")
        assert other.state("result") == RESULT
        assert (tab.overflow(), tab.outside, tab.complaints) == ([], [], [])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "folded"])
def test_a_vote_fits_a_projector_and_axe_finds_nothing(
    browser: Browser, stage: Staged, scheme: str, is_open: bool, tmp_path: Path
) -> None:
    with live_tab(browser, stage.address, color_scheme=scheme) as tab:
        tab.page.click('[data-vote="ask"]')
        for step in ("first", "second", "answer"):
            for number in range(4):
                tab.page.locator("li input").nth(number).fill(str(1_000 + number))
            tab.page.click(f'[data-vote="{step}"]')
            wait_until("it is taken", lambda step=step: step == "answer" or hands(tab, step)[0] == "1,000")
        wait_until("it is shown", lambda: "Right answers" in tab.page.inner_text("[data-advice]"))
        if not is_open:
            tab.page.click('[data-vote="close"]')
            wait_until("it is folded", tab.page.locator("figure").first.is_visible)
        tab.page.screenshot(path=tmp_path / "vote.png")
        found = Axe().run(tab.page)

        assert found.violations_count == 0, found.generate_report()
        assert tab.overflow() == []
        assert tab.evaluate("document.documentElement.scrollHeight") <= 720, "all is in one window"
        smallest = "all => Math.min(...all.map(one => parseFloat(getComputedStyle(one).fontSize)))"
        assert tab.page.locator(".vote *:visible").evaluate_all(smallest) >= 16
