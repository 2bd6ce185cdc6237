"""The live page in Chromium: a real spike on real processes, and the conditions of a projector.

Part of ``pytest -m course``.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ViewportSize

from experiments.bench.record import RESULTS
from overload_demo.lab import off_by
from overload_demo.lab.result import SpikeResult
from overload_demo.live import feed as words
from overload_demo.live.feed import KEPT, Feed, LiveSample
from overload_demo.live.page import Page
from overload_demo.live.sources import spike_samples
from tests.browser.live import PANELS, SOURCES, LiveTab, live_tab
from tests.browser.tab import running_chromium
from tests.support.running import child, environment, free_port, submit
from tests.support.stages import SIZES, Staged, on_stage
from tests.support.waiting import wait_until

pytestmark = pytest.mark.course

TEN_SECONDS = replace(SIZES, requests=2_400)  # a click may take a second
PROJECTOR: ViewportSize = {"width": 1280, "height": 720}
SCHEMES = ("light", "dark")
WIDE = {"accepted": 100_000, "errors": 95_133, "queue_depth": 70_594, "oldest_age_s": 120.5, "acceptance_p99_s": 0.999}
LONG = "Absorbed: 100,000 of 100,000 accepted, 0 lost. Peak 70,594 (predicted 50,000, -29 %). Empty after 65 s."


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all pages; each test has fresh tabs."""
    with running_chromium() as one:
        yield one


@pytest.fixture(scope="module")
def recorded() -> list[LiveSample]:
    """The samples of a spike that was really recorded."""
    return list(spike_samples(SpikeResult.read(RESULTS / "spike.json")))


@contextmanager
def a_page(feed: Feed) -> Iterator[str]:
    """The address of a page of ``feed``."""
    with Page(feed) as page:
        yield page.address


@pytest.fixture
def stage(tmp_path: Path, recorded: list[LiveSample]) -> Iterator[Staged]:
    """A stage on which a spike is just over, to be looked at; its stack does not run."""
    with on_stage(tmp_path, is_running=False) as staged:
        for sample in recorded:
            staged.feed.add(sample)
        staged.feed.mark("spike starts", 0.0)
        staged.feed.mark("killed", 20.0)
        staged.feed.show(title="The spike, with a queue", peak=50_000.0, empty_s=70.0, result=LONG, status="over")
        yield staged


def wait_for_samples(tab: LiveTab, count: int) -> None:
    wait_until(f"{count} samples are drawn", lambda: len(tab.curve("queue", "queue_depth")) >= count, 30.0)


def assert_shows(tab: LiveTab, sample: LiveSample) -> None:
    """Tiles and table show this sample."""
    expected = words.numbers(sample)
    wait_until("the tiles show it", lambda: {name: tab.number(name) for name in expected} == expected)
    cells = tab.page.locator("td[data-number]")
    assert dict(
        zip(cells.evaluate_all("all => all.map(one => one.dataset.number)"), cells.all_text_contents(), strict=True)
    ) == (expected)


def test_the_page_takes_a_prediction_and_shows_the_spike_and_the_errors(browser: Browser, tmp_path: Path) -> None:
    with (
        on_stage(tmp_path, TEN_SECONDS) as staged,
        live_tab(browser, staged.address) as tab,
        live_tab(browser, staged.address_without_token) as other,
    ):
        assert not other.page.locator("form").is_visible(), "without the token there is nothing to press"
        tab.page.fill('[name="peak"]', "300")
        tab.page.fill('[name="empty_s"]', "6")
        tab.press("spike")
        wait_for_samples(tab, 3)
        assert (tab.column("peak", "queue_depth"), tab.column("empty", "at_s")) == ([300, 300], [6])
        wait_until("the other page has it", lambda: other.column("peak", "queue_depth") == [300, 300])
        early = len(tab.curve("queue", "queue_depth"))

        assert tab.page.locator('[data-do="spike"]').is_disabled()
        tab.evaluate("(one => { one.disabled = false; one.click(); })(document.querySelector('[data-do=spike]'))")
        wait_until("the reason is shown", lambda: "another act is running" in tab.note())

        wait_until("it is over", lambda: tab.state("result"), 40.0)
        assert "Absorbed: 2,400 of 2,400 accepted, 0 lost." in tab.state("result")
        [result] = tmp_path.rglob("result.json")
        seen = SpikeResult.read(result)
        error = off_by(300, seen.peak_queue_depth)
        assert f"Peak {seen.peak_queue_depth:,} (predicted 300, {error})" in tab.state("result")
        assert seen.conditions.dashboard == "on"
        assert len(tab.curve("queue", "queue_depth")) > early
        assert max(value for _, value in tab.curve("queue", "queue_depth")) > 50
        assert tab.texts("marks") == ["first request"]
        assert_shows(tab, staged.feed.samples()[-1])
        assert (tab.number("accepted"), tab.number("errors"), tab.number("lost")) == ("2,400", "0", "0")
        wait_until("both pages show the result", lambda: other.state("result") == tab.state("result"))
        assert other.curve("queue", "queue_depth") == tab.curve("queue", "queue_depth")

        tab.press("reset")
        for one in (tab, other):
            wait_until("it is ready again", lambda one=one: one.state("status") == "ready", 30.0)
            assert one.column("queue", "at_s") == one.column("peak", "at_s") == one.texts("marks") == []
            assert (one.number("accepted"), one.state("result")) == (words.NOT_KNOWN, "")
            assert one.page.locator('[data-panel="depth"]').get_attribute("aria-label") == words.NOTHING_YET["depth"]
            assert one.outside == one.complaints == []


def test_the_curve_shows_a_killed_worker_and_its_restart(browser: Browser, tmp_path: Path) -> None:
    with on_stage(tmp_path, TEN_SECONDS) as staged, live_tab(browser, staged.address) as tab:

        def drains() -> list[float]:
            return [value for _, value in tab.curve("queue", "drain_rate_per_s")]

        tab.press("spike")
        wait_until("it drains", lambda: any(drains()), 30.0)
        tab.press("kill")
        wait_until("nothing is drained", lambda: drains()[-1] == 0 and "killed" in tab.texts("marks"), 20.0)
        assert tab.number("drain") == "0"

        *before, _ = tab.curve("queue", "queue_depth")  # a next sample that comes soon replaces the latest
        tab.page.reload()
        tab.wait_until_drawn()
        assert tab.curve("queue", "queue_depth")[: len(before)] == before, "a page loaded again has the whole curve"
        assert tab.texts("marks") == ["first request", "killed"]

        tab.press("restart")
        wait_until("it drains again", lambda: drains()[-1] > 0 and tab.texts("marks")[-1] == "restarted", 30.0)
        wait_until("it is over", lambda: "2,400 of 2,400 accepted, 0 lost" in tab.state("result"), 60.0)
        assert tab.outside == tab.complaints == []


def test_a_wrong_token_shows_the_buttons_and_refuses_each(browser: Browser, stage: Staged) -> None:
    with live_tab(browser, stage.address_without_token + "#wrong") as tab:
        tab.press("spike")

        wait_until("the reason is shown", lambda: "open the address that was printed" in tab.note())
        assert stage.feed.state["title"] == "The spike, with a queue"


def test_an_invalid_number_is_refused_with_a_reason(browser: Browser, stage: Staged) -> None:
    with live_tab(browser, stage.address) as tab:
        tab.page.fill('[name="peak"]', "-1")
        tab.press("spike")

        wait_until("the reason is shown", lambda: tab.note() == "peak: Input should be greater than or equal to 0")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing_and_each_chart_has_a_description(browser: Browser, stage: Staged, scheme: str) -> None:
    with live_tab(browser, stage.address, color_scheme=scheme) as tab:
        tab.page.click("text=The numbers as a table")
        found = Axe().run(tab.page)

        assert found.violations_count == 0, found.generate_report()
        samples = stage.feed.samples()
        labels = words.labels(samples[-1], max(sample.queue_depth for sample in samples))
        for panel in PANELS:
            figure = tab.page.locator(f'[data-panel="{panel}"]')
            assert (figure.get_attribute("role"), figure.get_attribute("aria-label")) == ("img", labels[panel])
        assert_shows(tab, samples[-1])


def test_the_keyboard_reaches_every_control_in_order(browser: Browser, stage: Staged) -> None:
    focused = "(one => one.name || one.dataset.do || one.dataset.vote || one.textContent)(document.activeElement)"
    with live_tab(browser, stage.address) as tab:
        order = []
        for _ in range(11):
            tab.page.keyboard.press("Tab")
            order.append(tab.evaluate(focused))

        assert order == [
            "Pause",
            "peak",
            "empty_s",
            "naive",
            "spike",
            "at_once",
            "storm",
            "reset",
            "question",
            "ask",
            "The numbers as a table",
        ]


def test_a_pause_holds_the_page_and_afterwards_nothing_is_missing(browser: Browser, recorded: list[LiveSample]) -> None:
    feed = Feed(title="a title")
    for sample in recorded[:10]:
        feed.add(sample)
    with a_page(feed) as address, live_tab(browser, address) as tab, live_tab(browser, address) as other:
        wait_for_samples(tab, 10)
        tab.page.keyboard.press("Tab")
        tab.page.keyboard.press("Space")
        assert tab.page.locator("[data-pause]").get_attribute("aria-pressed") == "true"
        for sample in recorded[10:20]:
            feed.add(sample)
        feed.mark("meanwhile")
        wait_for_samples(other, 20)
        assert len(tab.curve("queue", "queue_depth")) == 10

        tab.page.keyboard.press("Space")

        wait_for_samples(tab, 20)
        assert tab.curve("queue", "queue_depth") == other.curve("queue", "queue_depth")
        assert tab.texts("marks") == ["meanwhile"]


def test_an_open_tab_holds_no_more_samples_than_the_feed(browser: Browser, recorded: list[LiveSample]) -> None:
    feed = Feed(title="a title")
    with a_page(feed) as address, live_tab(browser, address) as tab:
        for number in range(3000):
            feed.add(replace(recorded[number % len(recorded)], at_s=number * 0.2))
            if number > 2600 and number % 100 == 99:
                wait_until("it is drawn", lambda at_s=number * 0.2: tab.column("queue", "at_s")[-1:] == [at_s])

        assert max(tab.evaluate(SOURCES)) == KEPT
        assert tab.evaluate("Bokeh.documents[0].get_model_by_name('time').end") == pytest.approx(2999 * 0.2 + 2)


def test_the_figure_returns_after_a_window_of_no_size(browser: Browser, stage: Staged) -> None:
    width = "document.querySelector('figure > div').firstElementChild.getBoundingClientRect().width"
    with live_tab(browser, stage.address) as tab:
        before = tab.evaluate(width)
        for size in ({"width": 0, "height": 0}, {"width": 1, "height": 1}):
            tab.page.set_viewport_size(size)
            stage.feed.mark("a mark")
        tab.page.set_viewport_size(PROJECTOR)

        wait_until("it is as wide as before", lambda: tab.evaluate(width) == before > 1000)
        wait_until("nothing is missing", lambda: len(tab.texts("marks")) == 4)
        assert tab.complaints == []


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_on_a_projector_nothing_is_cut_off(
    browser: Browser, stage: Staged, scheme: str, scale: int, tmp_path: Path
) -> None:
    with live_tab(browser, stage.address, color_scheme=scheme, device_scale_factor=scale) as tab:
        stage.feed.add(replace(stage.feed.samples()[-1], at_s=66.0, **WIDE))
        assert_shows(tab, stage.feed.samples()[-1])
        tab.page.screenshot(path=tmp_path / f"{scheme}-{scale}.png")

        assert tab.overflow() == []
        assert tab.evaluate("document.documentElement.scrollHeight") <= 720, "all is in one window"
        smallest = "all => Math.min(...all.map(one => parseFloat(getComputedStyle(one).fontSize)))"
        assert tab.page.locator("dd").evaluate_all(smallest) >= 44
        ground = "getComputedStyle(document.body).backgroundColor"
        assert (tab.evaluate(ground) == "rgb(255, 255, 255)") == (scheme == "light")


def test_behind_a_proxy_with_a_path_every_file_is_found(browser: Browser, stage: Staged) -> None:
    prefix = "/user/x/proxy/99"

    def behind(context: BrowserContext) -> None:
        context.route("**", lambda route: route.abort())
        context.route(f"**{prefix}/**", lambda route: route.continue_(url=route.request.url.replace(prefix, "")))

    base, _, token = stage.address.partition("#")
    with live_tab(browser, f"{base.rstrip('/')}{prefix}/#{token}", prepare=behind) as tab:
        wait_for_samples(tab, 100)
        tab.page.fill('[name="peak"]', "-1")
        tab.press("spike")

        wait_until("the order arrives", lambda: "greater than or equal to 0" in tab.note())
        assert tab.outside == tab.complaints == []


@contextmanager
def watching(folder: Path, url: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the command that watches an API; yield its process and the address of its page."""
    command = [sys.executable, "-m", "overload_demo.live", url]
    process = subprocess.Popen(
        command, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()[0]
    finally:
        process.kill()
        process.communicate()


def test_a_restarted_api_is_still_watched(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    api = child("overload_demo.api", "--port", str(port), folder=tmp_path)
    api.start()
    try:
        with httpx.Client(base_url=url, trust_env=False) as client:
            wait_until("it serves", lambda: answers(client), 20.0)
            submit(client, 3)
        with watching(tmp_path, url) as (process, address), live_tab(browser, address) as tab:
            wait_until("the page counts the jobs", lambda: tab.number("accepted") == "3")
            assert tab.number("errors") == "0", "from its own metrics"
            assert tab.number("lost") == words.NOT_KNOWN, "only a reconciliation counts it"

            api.kill()
            wait_until("the page reports it", lambda: "does not answer" in tab.state("status"))
            api.start()
            wait_until("it goes on", lambda: tab.texts("marks") == ["API does not answer", "API answers again"], 20.0)
            seen = len(tab.curve("queue", "queue_depth"))
            wait_until("the curve moves", lambda: len(tab.curve("queue", "queue_depth")) > seen)
            assert (tab.number("accepted"), tab.state("status")) == ("3", f"watching {url}")
            assert tab.outside == tab.complaints == []

            os.kill(process.pid, signal.SIGINT)
            text = process.communicate(timeout=15)[1]
            assert process.returncode == 130
            assert text.splitlines() == ["error: interrupted; all started processes have ended"]
    finally:
        api.stop()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False
