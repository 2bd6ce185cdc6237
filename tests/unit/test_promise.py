"""Every request of a spike has one named outcome, and the figures of 02 and 05 state the counts in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.lab import plots
from overload_demo.lab.job_log import JobLog, PromiseRun
from overload_demo.lab.result import Conditions, SpikeResult, SpikeSeries

ACCEPTED_S = np.array([0.0, 0.5, 1.0, 1.5])
LOG = JobLog(ACCEPTED_S, ACCEPTED_S, np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0]), 4)
EMPTY = JobLog(*np.zeros((4, 0)), offered=0)


def run(name: str = "bounded", promise_s: float = 2.0, **counts: Any) -> PromiseRun:
    """A run whose worker completed the four jobs of LOG after 1, 1.5, 2 and 2.5 s, with the fields figures read."""
    series = SpikeSeries.model_construct(sampled_at_s=[0.0, 2.0, 4.0], queue_depth=[0, 3, 0], oldest_age_s=[0, 2.5, 0])
    counted = {"offered": 10, "errors": {}, "expired": 0, "peak_queue_depth": 3, "seconds_to_empty": 4.0} | counts
    bound = Conditions.model_construct(max_queue_depth=3)
    return PromiseRun(name, SpikeResult.model_construct(series=series, conditions=bound, **counted), LOG, promise_s)


def test_a_job_done_exactly_at_the_promise_is_in_time() -> None:
    assert (run().in_time, run().ends["done late"]) == (3, 1)
    assert (run(promise_s=0.5).in_time, run(promise_s=0.5).ends["done late"]) == (0, 4)


def test_the_ends_add_up_to_what_was_offered() -> None:
    one = run(errors={"status 429": 3, "status 503": 1}, expired=2)

    assert one.ends == {
        "done in time": 3,
        "done late": 1,
        "refused at once": 3,
        "expired": 2,
        "anything else": 1,
    }
    assert one.refused_share == 0.3
    assert one.oldest_age_s == 2.5


@pytest.mark.parametrize("promise_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_promise_must_be_a_positive_time(promise_s: float) -> None:
    with pytest.raises(ConfigurationError, match="above 0"):
        PromiseRun.read("", None, promise_s)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (
            lambda: plots.cumulative(LOG, peak=5, empty_s=6),
            ["3 jobs", "waited 2.00 s", "peak of 5", "empty after 6.0 s"],
        ),
        (lambda: plots.cumulative(LOG), ["reaches 4 after 1.5 s"]),
        (lambda: plots.waits(LOG), ["Mean 1.75 s", "median 1.75 s", "longest 2.50 s", "50 % of the jobs"]),
        (lambda: plots.depth(LOG, arrival_per_s=2, drain_per_s=1, spike_s=2), ["up to 3", "up to 2 at 2.0 s"]),
        (lambda: plots.side_by_side([run(), run("other")]), ["bounded: up to 3 jobs", "oldest for 2.5 s", "other:"]),
        (lambda: plots.side_by_side([run()], oldest_s=2), ["Predicted for the bounded queue: oldest age 2 s"]),
        (lambda: plots.outcomes([run()], refused_percent=40), ["Predicted for the bounded queue: share refused 40 %"]),
        (lambda: plots.outcomes([run(expired=6), run("other")]), ["of 10 requests 3 done in time", "6 expired"]),
    ],
    ids=[
        "cumulative",
        "without predictions",
        "waits",
        "depth",
        "side by side",
        "age predicted",
        "refusals predicted",
        "outcomes",
    ],
)
def test_a_figure_states_its_numbers_in_its_alt_text(picture: Any, words: list[str], tmp_path: Path) -> None:
    drawn = picture()

    for part in words:
        assert part in drawn.alt
    assert drawn.save(tmp_path / "figure.png").stat().st_size > 10_000


def test_a_log_without_a_job_raises_instead_of_drawing() -> None:
    for figure in (plots.cumulative, plots.waits):
        with pytest.raises(ConfigurationError, match="nothing to draw"):
            figure(EMPTY)
