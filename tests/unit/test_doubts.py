"""Figures show the doubts about a result, and refuse to compare runs of different sizes."""

import numpy as np
import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.lab import plots
from overload_demo.lab.job_log import JobLog
from overload_demo.lab.plots.spike_figures import short_doubts
from tests.notebooks.students.spike import RECORDED

BOUND = RECORDED.load.model_copy(update={"verdict": "generator-bound", "reason": "a load process used 97 % of a core"})
LATE = "11,123 of 100,000 requests were not accepted (11,123 read timeout)"
DOUBTFUL = RECORDED.model_copy(update={"verdict": "not absorbed", "reasons": [LATE], "load": BOUND})


def log(offered: int, done: int) -> JobLog:
    times_s = np.arange(float(done))
    return JobLog(times_s, times_s + 1, times_s + 2, times_s + 3, offered)


def test_a_result_as_expected_has_no_doubts() -> None:
    assert RECORDED.doubts == []
    assert "\n" not in plots.spike(RECORDED).figure.get_suptitle()


def test_a_generator_bound_baseline_is_named_below_the_figure() -> None:
    naive = RECORDED.baseline
    assert naive is not None
    late = naive.summary.model_copy(update={"verdict": "generator-bound", "reason": "requests left late"})
    shown = plots.spike(RECORDED.model_copy(update={"baseline": naive.model_copy(update={"summary": late})}))

    assert "Its load was generator-bound: requests left late." in shown.caption


def test_an_unexpected_verdict_is_in_the_title_and_the_caption() -> None:
    assert DOUBTFUL.doubts == [f"not absorbed: {LATE}", "generator-bound: a load process used 97 % of a core"]

    shown = plots.spike(DOUBTFUL)

    assert shown.figure.get_suptitle().splitlines()[1:] == DOUBTFUL.doubts
    assert LATE in shown.caption and "Generator-bound: " in shown.caption
    compared = plots.drains({"a": RECORDED, "b": DOUBTFUL})
    assert f"b: not absorbed: {LATE}" in compared.figure.get_suptitle()
    assert f"b: not absorbed: {LATE}" in compared.alt


def test_a_long_reason_is_cut_to_the_width_of_the_figure() -> None:
    long = DOUBTFUL.model_copy(update={"reasons": [LATE * 3]})

    assert max(map(len, short_doubts(long, "a name"))) <= 86


def test_runs_of_different_numbers_of_requests_are_no_comparison() -> None:
    smaller = RECORDED.model_copy(update={"offered": 20_000})

    with pytest.raises(ConfigurationError, match=r"different numbers of requests \(a 100,000, b 20,000\)"):
        plots.drains({"a": RECORDED, "b": smaller})
    with pytest.raises(ConfigurationError, match=r"\(spike 10, all at once 5\)"):
        plots.where_the_waiting_went({"spike": log(10, 10), "all at once": log(5, 5)})


def test_requests_without_a_bar_are_counted_in_its_label() -> None:
    shown = plots.where_the_waiting_went({"spike": log(10, 10), "all at once": log(10, 7)})

    labels = [label.get_text() for label in shown.figure.axes[0].get_yticklabels()]
    assert labels == ["spike\nall 10", "all at once\n3 of 10 not done"]
    assert "all at once: 3 of 10 not done" in shown.alt


def test_the_mean_of_a_run_is_in_the_legend() -> None:
    legend = plots.drains({"a": RECORDED}).figure.axes[0].get_legend()

    assert [text.get_text() for text in legend.get_texts()] == [f"a: {RECORDED.drain_rate_per_s:,.0f}/s on average"]
