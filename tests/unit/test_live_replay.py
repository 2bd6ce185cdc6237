"""A recorded run on the live page: it ends with the recorded numbers, and an invalid folder is a one-line error."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from experiments.bench.record import RESULTS
from overload_demo.errors import ConfigurationError
from overload_demo.lab.result import SpikeResult, Vote
from overload_demo.live import sources
from overload_demo.live.ballot import QUESTIONS, vote_view
from overload_demo.live.feed import MARKS_FILE, Feed
from overload_demo.live.sources import Replay, baseline_samples, spike_samples

SPIKE = RESULTS / "spike.json"
FAST = 1e9
ASKED = ((QUESTIONS["spike"], 0.0), (QUESTIONS["kill"], 20.0))


@pytest.fixture(scope="module")
def recorded() -> SpikeResult:
    """The spike that was really recorded, naive API and all."""
    return SpikeResult.read(SPIKE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with it."""
    (tmp_path / "result.json").write_bytes(SPIKE.read_bytes())
    return tmp_path


def the_error(folder: Path) -> str:
    """The one line a folder is refused with."""
    with pytest.raises(ConfigurationError) as caught:
        Replay(folder)
    [line] = str(caught.value).splitlines()
    return line


def test_the_last_sample_has_the_totals_of_the_result(recorded: SpikeResult) -> None:
    *earlier, last = spike_samples(recorded)

    assert (last.accepted, last.errors, last.lost) == (recorded.accepted, recorded.offered - recorded.accepted, 0)
    assert (last.settled, last.queue_depth) == (recorded.done + recorded.failed, 0)
    assert {sample.lost for sample in earlier} == {None}
    assert max(sample.queue_depth for sample in earlier) == recorded.peak_queue_depth


def test_totals_only_rise_and_begin_with_the_first_request(recorded: SpikeResult) -> None:
    samples = list(spike_samples(recorded))

    assert 0 <= samples[0].at_s < 1
    for earlier, later in pairwise(samples):
        assert earlier.at_s <= later.at_s
        assert earlier.accepted <= later.accepted and earlier.settled <= later.settled


def test_the_naive_api_ends_with_its_totals_too(recorded: SpikeResult) -> None:
    assert recorded.baseline is not None
    *_, last = baseline_samples(recorded.baseline)
    summary = recorded.baseline.summary

    assert last.track == "naive"
    assert last.accepted == last.settled == pytest.approx(summary.accepted, abs=1)
    assert last.errors == pytest.approx(summary.sent - summary.accepted, abs=1)


@pytest.mark.anyio
async def test_it_is_played_to_its_end_with_marks_and_a_badge(folder: Path, recorded: SpikeResult) -> None:
    (folder / MARKS_FILE).write_text('[{"at_s": 0.0, "text": "spike starts"}, {"at_s": 20.0, "text": "worker killed"}]')
    feed = Feed()

    await Replay(folder).play(feed, speed=FAST)

    [snapshot] = feed.since(-1)
    assert feed.state["badge"] == "recorded"
    assert feed.state["result"] == sources.spike_text(recorded)
    assert [mark["text"].strip() for mark in snapshot.data["marks"]] == ["spike starts", "worker killed"]
    assert (feed.samples()[-1].accepted, feed.samples()[0].at_s < 1) == (recorded.accepted, True)
    assert len(feed.samples("naive")) == len(recorded.baseline.series.start_s if recorded.baseline else [])


@pytest.mark.anyio
async def test_a_replay_shows_the_votes_of_the_class_when_they_were_taken(folder: Path) -> None:
    votes = [Vote(question=one, asked_at_s=at_s, first=[1, 2, 3, 0][: len(one.answers)]) for one, at_s in ASKED]
    change(folder, lambda found: found.update(votes=[one.model_dump() for one in votes]))
    feed = Feed(vote=vote_view(votes[1], is_open=True, has_answer=False))
    before = feed.number

    await Replay(folder).play(feed, speed=FAST)

    shown = [message.data for message in feed.since(before) if message.kind == "state"]
    assert feed.state["vote"] == vote_view(votes[1], is_open=False, has_answer=True)
    assert len(shown) <= 4, "each vote once"


@pytest.mark.parametrize("wrong", [{"first": [1]}, {"first": [0, 0, 0]}, {"second": [1, -1, 3]}, {"first": "many"}])
def test_a_vote_that_does_not_add_up_is_one_line(folder: Path, wrong: dict[str, Any]) -> None:
    vote = Vote(question=QUESTIONS["spike"]).model_dump() | wrong
    change(folder, lambda found: found.update(votes=[vote]))

    assert "is not the result of a spike: votes.0" in the_error(folder)


@pytest.mark.anyio
async def test_a_second_play_gives_the_same_samples(folder: Path) -> None:
    feed, recorded = Feed(), Replay(folder)
    await recorded.play(feed, speed=FAST)
    once = feed.samples()

    await recorded.play(feed, speed=FAST)

    assert feed.samples() == once


def change(folder: Path, how: Callable[[dict[str, Any]], object]) -> None:
    """Make the recorded result another one."""
    path = folder / "result.json"
    found = json.loads(path.read_bytes())
    how(found)
    path.write_text(json.dumps(found))


def test_a_folder_without_a_result_is_named(tmp_path: Path) -> None:
    assert the_error(tmp_path) == f"no run to replay: {tmp_path / 'result.json'}: No such file or directory"


def test_a_file_in_place_of_the_folder_is_an_error(folder: Path) -> None:
    assert "Not a directory" in the_error(folder / "result.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"{}", b'"a spike"'])
def test_a_broken_result_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "result.json").write_bytes(content)

    assert "is not the result of a spike" in the_error(tmp_path)


@pytest.mark.parametrize("version", [2, "2", None])
def test_a_newer_schema_is_named(folder: Path, version: object) -> None:
    change(folder, lambda found: found.update(schema_version=version))

    assert f"is of schema {version!r}, not of 1" in the_error(folder)


def test_a_result_that_does_not_add_up_is_refused(folder: Path) -> None:
    change(folder, lambda found: found.update(accepted=1))

    assert "offered 100000 is not accepted 1" in the_error(folder)


@pytest.mark.parametrize("content", ["", "{", "{}", '[{"at_s": "soon", "text": ""}]', '[{"text": "no time"}]'])
def test_broken_marks_are_one_line(folder: Path, content: str) -> None:
    (folder / MARKS_FILE).write_text(content)

    assert the_error(folder) == f"{folder / MARKS_FILE} does not hold the marks of a run"


@pytest.mark.parametrize("kept", [0, 5])
@pytest.mark.parametrize("series", ["series", "baseline.series"])
def test_a_series_that_is_cut_off_is_one_line(folder: Path, series: str, kept: int) -> None:
    def cut(found: dict[str, Any]) -> None:
        *way, last = series.split(".")
        for step in way:
            found = found[step]
        names = ("queue_depth", "in_flight", *(("sampled_at_s",) if kept == 0 else ()))
        found[last] |= {name: found[last][name][:kept] for name in names if name in found[last]}

    change(folder, cut)

    assert "has no samples, or not all of each" in the_error(folder)
