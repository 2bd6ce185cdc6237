"""The load generator measures servers of known behaviour correctly."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydantic import ValidationError

from overload_demo.load import Kind, LoadPlan, LoadProgress, LoadResult, LoadSummary, Shape, calibrate, run_load
from overload_demo.load.generator import processes_for
from overload_demo.load.load_result import Health, judge
from tests.load import scripted_server as scripted
from tests.load.scripted_server import Request, Script, ScriptedServer, answer, scripted_server

CLOCK_STEP_S = 0.001  # of an event loop's timers


def fire(url: str, requests: int = 20, **settings: object) -> LoadResult:
    plan = {"url": url, "requests": requests, "rate_per_s": 500.0, "shape": Shape.CONSTANT} | settings
    return asyncio.run(run_load(LoadPlan(**plan)))  # type: ignore[arg-type]


def load_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "overload_demo.load.sender" in child.cmdline()]


def test_every_request_is_sent_once_and_its_id_kept() -> None:
    with scripted_server(scripted.accept) as server:
        result = fire(server.url, 200, processes=3)

    assert sorted(server.values) == list(range(200))
    assert len(set(result.accepted_ids)) == 200
    assert result.summary().all_accepted
    assert len(result.processes) == 3
    assert not load_processes()


def test_a_deadline_goes_into_every_body_and_only_when_there_is_one() -> None:
    with scripted_server(scripted.accept) as server:
        fire(server.url, 3, expires_in_s=2)
        fire(server.url, 3)

    deadlines = [json.loads(body).get("expires_in_s") for body in server.bodies]
    assert deadlines == [2.0] * 3 + [None] * 3


def test_a_measured_time_spans_the_servers_delay_and_ends_before_the_next_request() -> None:
    read_at, answered_at = list[float](), list[float]()

    async def script(request: Request) -> None:
        read_at.append(time.monotonic())
        await asyncio.sleep(0.05)
        answered_at.append(time.monotonic())  # before the response, which the client may read at once
        answer(request)

    with scripted_server(script) as server:
        load = fire(server.url, 20, connections=1)  # one after the other
    measured = (load.done_s - load.sent_s)[1:-1]

    assert (measured >= np.subtract(answered_at, read_at)[1:-1] - CLOCK_STEP_S).all()
    assert (measured <= np.subtract(read_at[2:], answered_at[:-2]) + CLOCK_STEP_S).all()


def test_a_response_time_begins_before_the_service_time() -> None:
    with scripted_server(scripted.accept_after(0.1)) as server:
        load = fire(server.url, 100)

    assert (load.response_s >= load.done_s - load.sent_s).all()
    assert min(load.done_s - load.sent_s) >= 0.1 - CLOCK_STEP_S


def test_an_open_loop_measures_the_freeze_that_a_closed_loop_hides() -> None:
    freeze_s = 2.0
    script: Callable[[], Script] = lambda: scripted.freeze(at_request=300, for_s=freeze_s, delay_s=0.01)  # noqa: E731

    with scripted_server(script()) as server:
        opened = fire(server.url, 900, rate_per_s=400.0).summary()
    with scripted_server(script()) as server:
        closed = fire(server.url, 900, connections=5).summary()

    assert opened.response_time is not None
    assert closed.response_time is not None
    assert (opened.mode, closed.mode) == ("open loop", "closed loop")
    assert min(opened.response_time.max_s, closed.response_time.max_s) >= freeze_s  # both were open during the freeze
    # one of them 4 in 9, the other 1 in 180
    assert closed.response_time.p90_s < freeze_s / 2 < opened.response_time.p90_s


def test_no_request_leaves_before_its_time() -> None:
    with scripted_server(scripted.accept) as server:
        load = fire(server.url, 200, rate_per_s=400.0)

    assert min(load.sent_s - load.intended_s) >= 0
    assert min(load.response_s) > 0


def test_a_paced_client_of_a_closed_loop_sends_no_faster_than_its_pace_and_catches_nothing_up() -> None:
    clients, pace_s, last_s = 4, 0.1, 1.05

    with scripted_server(scripted.freeze(at_request=12, for_s=0.5, delay_s=0.0)) as server:
        load = fire(server.url, 1_000, connections=clients, pace_s=pace_s, max_duration_s=last_s)

    assert load.summary().all_accepted
    assert max(load.sent_s[:clients]) > pace_s / 2, "the clients begin spread over one pace"
    left_out = clients * 0.5 / pace_s  # due during the freeze
    assert load.sent_s.size <= clients * (1 + last_s / pace_s) - left_out + clients


OUTCOMES: list[tuple[Script, Kind]] = [
    (scripted.accept, Kind.ACCEPTED),
    (scripted.refuse_with_503, Kind.OTHER_STATUS),
    (scripted.accept_without_id, Kind.OTHER),
    (scripted.truncate, Kind.DISCONNECTED),
    (scripted.hang_up, Kind.DISCONNECTED),
    (scripted.reset, Kind.RESET),
]


def test_each_outcome_is_counted_by_name() -> None:
    async def by_turns(request: Request) -> None:
        await OUTCOMES[request.number % len(OUTCOMES)][0](request)

    with scripted_server(by_turns) as server:
        result = fire(server.url, 10 * len(OUTCOMES))

    assert Counter(result.kind.tolist()) == Counter([kind for _, kind in OUTCOMES] * 10)
    assert result.summary().sent == 10 * len(OUTCOMES)


def test_a_request_without_a_response_is_a_read_timeout() -> None:
    with scripted_server(scripted.stay_silent) as server:
        result = fire(server.url, 20, timeout_s=2.0)

    assert Counter(result.kind.tolist()) == {Kind.READ_TIMEOUT: 20}
    assert result.summary().sent == 20


@pytest.mark.parametrize(
    ("unreachable", "kind", "timeout_s"),
    [(scripted.closed_port, Kind.REFUSED, 30.0), (scripted.full_accept_queue, Kind.CONNECT_TIMEOUT, 2.5)],
)
def test_a_failed_connection_is_counted_by_name(
    unreachable: Callable[[], AbstractContextManager[str]], kind: Kind, timeout_s: float
) -> None:
    with unreachable() as url:
        result = fire(url, 20, timeout_s=timeout_s)

    assert {Kind(value).name for value in result.kind.tolist()} == {kind.name}
    assert result.summary().accepted == 0
    assert result.summary().response_time is None


def test_other_responses_are_counted_by_status() -> None:
    async def by_turns(request: Request) -> None:
        answer(request, status=(202, 429, 503, 503)[request.number % 4])

    with scripted_server(by_turns) as server:
        summary = fire(server.url, 40).summary()

    assert summary.accepted == 10
    assert summary.other_status == {429: 10, 503: 20}
    assert not summary.all_accepted


def test_more_than_a_hundred_requests_are_in_flight_at_once() -> None:
    all_arrived = asyncio.Event()

    async def when_all_are_here(request: Request) -> None:
        if request.number == 149:
            all_arrived.set()
        await all_arrived.wait()
        answer(request)

    with scripted_server(when_all_are_here) as server:
        summary = fire(server.url, 150, shape=Shape.AT_ONCE, processes=2).summary()

    assert summary.all_accepted
    assert summary.health.peak_open_sockets == 150
    assert any("at once means" in remark for remark in summary.remarks)


def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    with scripted_server(scripted.accept) as server:
        assert fire(server.url).summary().all_accepted


def test_cancelling_ends_the_load_processes() -> None:
    async def cancel_once_it_runs(url: str) -> None:
        running = asyncio.Event()

        def note(progress: LoadProgress) -> None:
            if progress.sent:
                running.set()

        plan = LoadPlan(url, requests=10_000, rate_per_s=100.0, shape=Shape.CONSTANT, processes=2)
        load = asyncio.create_task(run_load(plan, on_progress=note))
        async with asyncio.timeout(30):
            await running.wait()
        assert len(load_processes()) == 2
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load

    with scripted_server(scripted.accept) as server:
        asyncio.run(cancel_once_it_runs(server.url))

    assert not load_processes()


@pytest.mark.exhaustive
def test_the_longest_duration_ends_the_load() -> None:
    with scripted_server(scripted.accept) as server:
        opened = fire(server.url, 1000, rate_per_s=100.0, max_duration_s=0.5).summary()
        closed = fire(server.url, 1_000_000, connections=4, max_duration_s=0.5).summary()

    assert (opened.planned, opened.not_fired) == (51, 949)
    assert 0 < closed.planned == closed.sent == closed.accepted < 1_000_000


def test_calibration_measures_the_rate_of_the_server() -> None:
    with scripted_server(scripted.accept_after(0.02)) as server:
        rate_per_s = asyncio.run(calibrate(server.url, duration_s=2.0, connections=10))

    assert 0 < rate_per_s <= 10 / 0.02
    assert rate_per_s * 1.6 <= len(server.bodies)  # the first fifth is not counted


def test_a_result_survives_being_saved(tmp_path: Path) -> None:
    with scripted_server(scripted.accept) as server:
        plan = LoadPlan(server.url, requests=50, rate_per_s=500.0)
        result = asyncio.run(run_load(plan, out_dir=tmp_path))

    loaded = LoadResult.load(tmp_path / "load.npz")

    assert loaded.summary() == result.summary()
    assert loaded.accepted_ids == result.accepted_ids
    assert (tmp_path / "load.json").exists()


def test_the_series_adds_up_to_the_counts() -> None:
    with scripted_server(scripted.accept_after(0.05)) as server:
        result = fire(server.url, 400)

    series = result.series(bucket_s=0.1)

    assert sum(series.offered_per_s) * 0.1 == pytest.approx(400)
    assert sum(series.accepted_per_s) * 0.1 == pytest.approx(400)
    assert sum(series.failed_per_s) == 0
    assert series.in_flight[-1] == 0
    assert max(series.in_flight) > 0
    assert min(p50_s for p50_s in series.response_p50_s if p50_s is not None) >= 0.05


def test_a_summary_that_does_not_add_up_is_refused(summary: LoadSummary) -> None:
    with pytest.raises(ValidationError, match="sum of its outcomes"):
        LoadSummary(**(summary.model_dump() | {"accepted": 19}))
    with pytest.raises(ValidationError, match="planned"):
        LoadSummary(**(summary.model_dump() | {"dropped": 1}))


@pytest.mark.parametrize(
    ("lag_s", "cpu_share", "dropped", "verdict", "reason"),
    [
        (0.0099, 0.89, 0, "valid", "99 % left within 9.9 ms"),
        (0.0101, 0.89, 0, "generator-bound", "more than 10 ms late"),
        (0.0099, 0.91, 0, "generator-bound", "used 91 % of a core"),
        (0.0099, 0.89, 1, "generator-bound", "1 requests were never sent"),
    ],
)
def test_the_verdict_follows_lag_cpu_and_dropped_requests(
    lag_s: float, cpu_share: float, dropped: int, verdict: str, reason: str
) -> None:
    health = Health(lag_p50_s=0, lag_p99_s=lag_s, lag_max_s=1, cpu_share=[0.1, cpu_share], peak_open_sockets=1)

    judged, why = judge(health, dropped, is_closed=False)

    assert judged == verdict
    assert reason in why


def test_processes_follow_sockets_and_rate() -> None:
    def chosen(**settings: object) -> int:
        plan = {"url": "http://127.0.0.1:1", "requests": 100_000} | settings
        return processes_for(LoadPlan(**plan), descriptors=20_000)  # type: ignore[arg-type]

    assert chosen(rate_per_s=4000.0) == 1
    assert chosen(rate_per_s=12_000.0) == 3
    assert chosen(shape=Shape.AT_ONCE) == 6
    assert chosen(connections=64) == 1
    assert chosen(processes=2) == 2


@pytest.fixture(scope="module")
def summary() -> LoadSummary:
    server: ScriptedServer
    with scripted_server(scripted.accept) as server:
        return fire(server.url).summary()


def test_a_single_request_has_no_rate_of_sends() -> None:
    with scripted_server(scripted.accept) as server:
        assert fire(server.url, 1).summary().sent_per_s == 0.0
