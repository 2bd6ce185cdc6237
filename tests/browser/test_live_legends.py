"""The live page names only curves that it draws, and shows a gap where there are no samples.

Part of ``pytest -m course``.
"""

from dataclasses import replace

import pytest

from experiments.bench.record import RESULTS
from overload_demo.lab.result import SpikeResult
from overload_demo.live.feed import Feed
from overload_demo.live.page import Page
from overload_demo.live.sources import spike_samples
from tests.browser.live import live_tab
from tests.browser.tab import running_chromium
from tests.support.waiting import wait_until

pytestmark = pytest.mark.course

LEGENDS = """() => Bokeh.documents.flatMap(one => one.get_model_by_name("legend").items)
  .filter(item => item.visible).map(item => item.label.value)"""


def test_only_curves_that_are_drawn_are_named_and_a_time_with_gaps_is_a_gap() -> None:
    recorded = list(spike_samples(SpikeResult.read(RESULTS / "spike.json")))
    feed = Feed(title="a title")
    with Page(feed) as page, running_chromium() as browser, live_tab(browser, page.address) as tab:
        assert tab.evaluate(LEGENDS) == []

        for sample in recorded[:20]:
            feed.add(sample)
        feed.add(replace(recorded[20], at_s=recorded[19].at_s + 3))
        wait_until("all are drawn", lambda: len(tab.curve("queue", "queue_depth")) == 21)
        drawn = ["queue API, time to the 202", "queue API, jobs", "accepted", "done"]
        assert tab.evaluate(LEGENDS) == drawn
        assert len(tab.column("queue", "at_s")) == 22, "a row without values breaks the line"

        feed.show(peak=300.0)
        wait_until("the prediction is named", lambda: tab.evaluate(LEGENDS) == [*drawn[:2], "predicted", *drawn[2:]])
        assert tab.complaints == []
