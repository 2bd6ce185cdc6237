"""What holds for every figure: no bar without a length, axes with a scale, legends beside the curves, gaps for gaps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from experiments import record_baseline
from experiments.bench import growth
from experiments.bench.peers.comparison import Comparison, draw
from experiments.bench.record import RESULTS, Benchmark
from overload_demo.lab import about, off_by, plots
from overload_demo.lab.crashes import Charges, CrashResult, JobRuns, KillSeen, Run
from overload_demo.lab.job_log import JobLife
from overload_demo.lab.measuring import MeasuredLoad, Pairs
from overload_demo.lab.plots.accessible_figure import AccessibleFigure, with_gaps
from overload_demo.lab.result import SpikeResult, recorded_baseline
from overload_demo.lab.round_trips import Acceptance
from overload_demo.lab.storm import Cure, StormPlan
from overload_demo.lab.storm_simulation import simulate
from overload_demo.load import LoadPlan, LoadResult
from overload_demo.load.load_result import Kind
from overload_demo.load.plan import duration
from tests.notebooks.students.spike import RECORDED
from tests.support.steps import step
from tests.unit.test_promise import LOG, run

FAR = SpikeResult.read(RESULTS / "spike_far.json")
STEPS = [step(offered_per_s=80.0, planned=480, answered=480), step()]
RUNS = recorded_baseline()
LIFE = JobLife(
    job_id="job_0",
    status="done",
    payload={},
    created_at="2026-01-01T12:00:00.000Z",
    started_at="2026-01-01T12:00:00.004Z",
    completed_at="2026-01-01T12:00:00.043Z",
)
CRASH = CrashResult(
    spike=RECORDED,
    kills=[KillSeen("worker", 1.0, 0.5, held=3, again=1)],
    charges=Charges(never=1, once=99_990, more=9),
    accepted_s=[0.1, 0.2, 1.2],
    done_s=[0.5, 0.9, 1.8],
    lives=[
        JobRuns(0.1, [Run(1, 0.4, 0.5)]),
        JobRuns(0.2, [Run(1, 0.6, 0.9), Run(2, 1.5, 1.6)]),
        JobRuns(0.9, [Run(1, 0.95, None), Run(2, 1.6, 1.8)]),
    ],
)
DUE_S = np.linspace(0, 4, 40)
LATE_S = np.where((DUE_S > 1) & (DUE_S < 3), 3 - DUE_S, 0.004)
FROZEN = MeasuredLoad(
    LoadResult(
        plan=LoadPlan("http://127.0.0.1:9", requests=40, rate_per_s=10),
        intended_s=DUE_S,
        sent_s=DUE_S,
        done_s=DUE_S + LATE_S,
        status=np.full(40, 202, np.int16),
        kind=np.full(40, Kind.ACCEPTED, np.uint8),
        job_ids=np.full(40, b"job_0"),
        processes=[],
        environment=RECORDED.load.environment,
        started_at="",
        started_mono_s=0.0,
    ),
    frozen_s=(1.0, 3.0),
)
NEAR, MIDDLE, FAR_AWAY, PLAIN = [
    Acceptance(name, 100.0, round_trip_s, max_batch, RECORDED.load, calls, 1_000, 0.01)
    for name, round_trip_s, max_batch, calls in (
        ("near", 0.001, 1, 900),
        ("middle", 0.01, 8, 100),
        ("far", 0.05, 64, 20),
        ("plain", 0.05, 1, 1_000),
    )
]
STORM_PLAN = StormPlan(per_s=40)
STORMS = [simulate(STORM_PLAN, Cure("no cure")), simulate(STORM_PLAN, Cure.of("bound", room=30))]
MEASURED_STORM = [replace(STORMS[0], is_measured=True)]
# One drawing of each function of ``plots``; a new figure needs an entry.
DRAWN: dict[str, Callable[[], AccessibleFigure]] = {
    "batches": lambda: plots.batches([NEAR, MIDDLE, FAR_AWAY], PLAIN, needed=16),
    "ccdf": lambda: plots.ccdf(STEPS),
    "cumulative": lambda: plots.cumulative(LOG, peak=5, empty_s=6),
    "depth": lambda: plots.depth(LOG, arrival_per_s=2, drain_per_s=1, spike_s=2),
    "designs": lambda: plots.designs({"at least once": CRASH}, twice={"at least once": 5}),
    "distances": lambda: plots.distances([NEAR, MIDDLE, FAR_AWAY], median_ms=80, calls_per_job=0.5),
    "drains": lambda: plots.drains({"one": RECORDED, "other": FAR}),
    "endings": lambda: plots.endings(STEPS),
    "goodput": lambda: plots.goodput(STEPS, breaks_at_per_s=100, last_per_s=90),
    "knee": lambda: plots.knee(STEPS[:1], limit_s=0.04),
    "life": lambda: plots.life(LIFE, answer_s=0.5),
    "lives": lambda: plots.lives(CRASH),
    "outcomes": lambda: plots.outcomes([run(), run("other")], refused_percent=40),
    "pairs": lambda: plots.pairs(Pairs(np.full(6, 100.0), np.linspace(102, 107, 6), ())),
    "recovery": lambda: plots.recovery(CRASH, back_s=2.0),
    "retransmits": lambda: plots.retransmits(FROZEN),
    "samples": lambda: plots.samples({"open loop": FROZEN}),
    "side_by_side": lambda: plots.side_by_side([run(), run("other")], oldest_s=2),
    "spectrum": lambda: plots.spectrum({"open loop": LATE_S}, p99_s={"open loop": 1.5}),
    "spike": lambda: plots.spike(RECORDED, peak=50_000, empty_s=60),
    "storm_map": lambda: plots.storm_map(STORMS, MEASURED_STORM),
    "storms": lambda: plots.storms([*STORMS, *MEASURED_STORM], back_s=3),
    "spoiled": lambda: plots.spoiled([STEPS[0], step(offered_per_s=80.0, on_a_fresh_server=False, backlog_before=9)]),
    "variants": lambda: plots.variants(RUNS, RUNS[0].summary.environment),
    "waits": lambda: plots.waits(LOG),
    "where_the_waiting_went": lambda: plots.where_the_waiting_went({"spike": LOG, "all at once": LOG}),
}
MORE: dict[str, Callable[[], AccessibleFigure]] = {"spike far away": lambda: plots.spike(FAR)}
MEASURED: dict[str, Callable[[Path], Figure]] = {
    "peers": lambda path: draw(Comparison.read(), path),
    "growth": lambda path: growth.draw(
        Benchmark.model_validate_json((RESULTS / "bench_growth.json").read_bytes()).rows, path
    ),
} | {
    variant: lambda path, variant=variant: record_baseline.draw(  # type: ignore[misc]
        [one for one in RUNS if one.variant == variant], path
    )
    for variant in dict.fromkeys(one.variant for one in RUNS)
}


@pytest.fixture(params=[*DRAWN, *MORE, *MEASURED], scope="module")
def figure(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Figure:
    name = request.param
    if name in MEASURED:
        drawn = MEASURED[name](tmp_path_factory.mktemp("figures") / "figure.png")
    else:
        drawn = (DRAWN | MORE)[name]().figure
    drawn.draw_without_rendering()
    return drawn


def test_every_figure_is_examined_here() -> None:
    diagram = "counterexample"  # has no axes; tests/notebooks/test_repairs.py examines it
    assert sorted(plots.__all__) == sorted([*DRAWN, diagram])


def log_axes(figure: Figure) -> list[tuple[Axes, str]]:
    return [(axes, name) for axes in figure.axes for name in "xy" if getattr(axes, f"get_{name}scale")() == "log"]


def test_no_bar_stands_on_a_logarithmic_axis(figure: Figure) -> None:
    assert [axes for axes, _ in log_axes(figure) if any(isinstance(one, BarContainer) for one in axes.containers)] == []


def test_a_logarithmic_axis_has_three_labels_or_more(figure: Figure) -> None:
    for axes, name in log_axes(figure):
        low, high = getattr(axes, f"get_{name}lim")()
        ticks = getattr(axes, f"get_{name}ticks")()
        assert np.count_nonzero((low <= ticks) & (ticks <= high)) >= 3, axes.get_ylabel()


def test_a_legend_is_beside_the_curves_and_names_only_what_is_drawn(figure: Figure) -> None:
    for axes in figure.axes:
        if legend := axes.get_legend():
            assert legend.get_window_extent().y0 >= axes.get_window_extent().y1 - 1, "no curve crosses it"
        if axes.get_xscale() == axes.get_yscale() == "linear":
            for line in axes.lines:
                is_curve = line.get_linestyle() not in ("None", "")  # a mark may be the key of a kind that is absent
                assert len(line.get_xdata()) or not is_curve or line.get_label().startswith("_"), line.get_label()


def test_labels_in_a_panel_do_not_cover_each_other(figure: Figure) -> None:
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
        assert not [one for number, one in enumerate(boxes) if one.count_overlaps(boxes[number + 1 :])]


def test_the_naive_curve_says_why_it_falls_and_what_is_left() -> None:
    drawn, naive = plots.spike(RECORDED), RECORDED.baseline
    assert naive is not None
    fired_s = max(
        start_s for start_s, sent in zip(naive.series.start_s, naive.series.offered_per_s, strict=True) if sent
    )
    crowded_s = min(
        start_s for start_s, count in zip(naive.series.start_s, naive.series.in_flight, strict=True) if count > 100
    )
    held = naive.series.app_in_flight[-1]

    depth = drawn.figure.axes[1]
    marks = {text.get_text(): text.xy[0] for text in depth.texts}
    assert marks["firing stops"] == pytest.approx(fired_s, abs=1)
    assert marks["clients give up"] == pytest.approx(crowded_s + naive.timeout_s, abs=1), "10 s after the calm"
    assert f"all have left; the API\nstill works on {held:,}" in marks
    for words in ("give up from", "Firing stops at", f"the API still works on {held:,} requests"):
        assert words in drawn.alt


def test_seconds_whose_requests_got_no_answer_are_marked_where_the_requests_were_due() -> None:
    latency = plots.spike(RECORDED).figure.axes[0]

    [crosses] = [line for line in latency.lines if line.get_marker() == "x"]
    naive = RECORDED.baseline
    assert naive is not None
    seconds = zip(naive.series.response_p99_s, naive.series.offered_per_s, strict=True)
    assert len(crosses.get_xdata()) == [p99_s for p99_s, offered in seconds if offered].count(None) > 10
    assert set(crosses.get_ydata()) == {10.0}


def test_a_line_is_broken_where_there_are_no_samples() -> None:
    times_s, values = with_gaps([0.0, 0.2, 3.4, 3.6], [5, 6, 7, 8])

    assert times_s == [0.0, 0.2, 0.2, 3.4, 3.6]
    assert np.isnan(values[2]) and np.delete(values, 2).tolist() == [5, 6, 7, 8]


def test_a_freeze_is_a_rate_of_its_own_and_no_slope() -> None:
    series = RECORDED.series.model_copy(
        update={"sampled_at_s": [0.0, 1.0, 2.0, 5.0, 6.0], "settled": [0, 100, 200, 200, 300]}
    )

    assert series.drained_per_s() == ([100, 100, 0, 100], [0.0, 1.0, 2.0, 5.0, 6.0])


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (39.553, "39.6"),
        (26_420, "26,420"),
        (88.72, "88.7"),
        (0.0078231, "0.00782"),
        (1234.56, "1,235"),
        (0, "0"),
        (float("nan"), "nan"),
    ],
)
def test_a_measured_number_has_about_three_digits(number: float, text: str) -> None:
    assert about(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 ms"), (0.00043, "0.43 ms"), (0.039553, "40 ms"), (0.9996, "1.0 s"), (9.55, "9.6 s"), (88.72, "88.7 s")],
)
def test_a_time_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("guess", "measured", "text"),
    [
        (117, 100, "+17 %"),
        (117, float("nan"), "-"),
        (50, 100, "-50 %"),
        (200, 100, "+100 %"),
        (0, 100, "-100 %"),
        (2308, 100, "23 times too high"),
        (250, 100, "2.5 times too high"),
        (40, 100, "2.5 times too low"),
        (4, 100, "25 times too low"),
        (5, 0, "-"),
    ],
)
def test_the_error_of_a_prediction_is_a_factor_where_it_is_large(guess: float, measured: float, text: str) -> None:
    assert off_by(guess, measured) == text
