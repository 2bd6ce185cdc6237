"""The act of a retry storm: its course, and what is stored of it."""

from pathlib import Path

import psutil
import pytest

from overload_demo.lab.result import SpikeResult
from overload_demo.lab.spike_plan import SpikeProgress
from overload_demo.lab.stack import Stack
from overload_demo.live import storm_act
from overload_demo.live.feed import Feed
from overload_demo.live.page import ClassGuess
from overload_demo.live.sources import Replay, spike_samples
from overload_demo.live.stage import Stage
from overload_demo.live.storm_act import StormScript
from overload_demo.load import LoadProgress
from tests.support.stages import SIZES

pytestmark = pytest.mark.anyio
SHORT = {"CALM_S": 1.0, "FREEZE_S": 2.0, "OUTAGE_S": 2.0, "CURED_S": 6.0}


def marks(feed: Feed) -> list[str]:
    [snapshot] = feed.since(-1)
    return [mark["text"].strip() for mark in snapshot.data["marks"]]


def test_the_store_freezes_once_and_the_budget_comes_after_the_outage() -> None:
    freezes, marked = list[float](), list[str]()
    script = StormScript(lambda _: None, freezes.append, marked.append)

    def follow(elapsed_s: float) -> None:
        script.follow(SpikeProgress("fire", 1000, LoadProgress(elapsed_s, 1000)))

    follow(storm_act.CALM_S - 0.1)
    assert (freezes, marked) == ([], [])
    follow(storm_act.CALM_S)
    follow(storm_act.CALM_S + 1)
    assert all(script.take(0) for _ in range(1000))
    follow(storm_act.CALM_S + storm_act.FREEZE_S + storm_act.OUTAGE_S)
    follow(storm_act.LASTS_S)

    assert (freezes, marked) == ([storm_act.FREEZE_S], ["retry budget 10 %"])
    assert sum(script.take(100) for _ in range(1000)) == 10


def test_without_repeats_there_is_room_and_with_all_of_them_there_is_not() -> None:
    load = storm_act.RATE_PER_S * storm_act.WORK_S

    assert load * (1 + storm_act.RATIO) < 0.5
    assert load * storm_act.ATTEMPTS >= 0.9  # and what the worker adds to each job
    assert storm_act.FREEZE_S > storm_act.TIMEOUT_S


@pytest.mark.course
async def test_the_act_is_played_accounted_for_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SHORT.items():
        monkeypatch.setattr(storm_act, name, value)
    monkeypatch.setattr(storm_act, "LASTS_S", sum(SHORT.values()))
    feed = Feed()
    stack = await Stack.start(placement="process", processing_delay_s=SIZES.delay_s, runs=tmp_path)
    async with stack, Stage(feed, SIZES, stack) as stage:
        await stage.act("storm", ClassGuess())
        await stage.wait()
        store = psutil.Process(stack.process_ids()["redis"])
        [folder] = stack.folder.glob("act-*-storm")
        result = SpikeResult.read(folder / "result.json")

        assert store.status() != psutil.STATUS_STOPPED
        assert marks(feed) == ["first request", "frozen", "thawed", "retry budget 10 %"]
        assert f"of {result.load.planned:,} requests got a result in time" in feed.state["result"]

    clients, conditions = result.load.retry, result.conditions
    assert clients is not None
    assert conditions.retry == storm_act.storm_plan("").retry
    assert clients.repeats > 0
    assert result.offered == clients.attempts == result.accepted + sum(result.errors.values())
    assert result.lost == 0

    first, *_, last = spike_samples(result)
    assert first.accepted_per_s is None  # no line, and so no name in the legend: attempts are drawn instead
    assert (last.sent, last.in_time) == (clients.attempts, clients.accepted)
    again = Feed()
    await Replay(folder).play(again, 1e9)
    assert again.samples()[-1].in_time == clients.accepted
    assert marks(again) == marks(feed)
