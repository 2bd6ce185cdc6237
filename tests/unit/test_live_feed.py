"""The stream behind the live views: a reader that missed messages gets a snapshot, and memory is bounded."""

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

from overload_demo.live import feed as words
from overload_demo.live.feed import EVERY_S, KEPT, KEPT_MARKS, MARKS_FILE, Feed, LiveSample, Message


def a_sample(at_s: float, **changes: Any) -> LiveSample:
    """A queue that takes 100 jobs a second and does 50."""
    accepted, settled = round(at_s * 100), round(at_s * 50)
    usual: dict[str, Any] = {
        "track": "queue",
        "accepted": accepted,
        "errors": 0,
        "queue_depth": accepted - settled,
        "oldest_age_s": at_s / 2,
        "settled": settled,
    }
    return LiveSample(at_s=at_s, **(usual | changes))


def fill(feed: Feed, count: int, **changes: Any) -> LiveSample:
    """Add so many samples, five a second, and return the last."""
    for number in range(count):
        feed.add(a_sample(round((number + 1) * EVERY_S, 3), **changes))
    return feed.samples(changes.get("track", "queue"))[-1]


def snapshot_of(messages: list[Message]) -> dict[str, Any]:
    """Return the data of the one message, a snapshot."""
    [message] = messages
    assert message.kind == "snapshot"
    return message.data


def test_a_new_reader_gets_a_snapshot_even_of_an_empty_feed() -> None:
    snapshot = snapshot_of(Feed(title="a title").since(-1))

    assert snapshot["state"]["title"] == "a title"
    assert (snapshot["samples"], snapshot["marks"]) == ([], [])
    assert set(snapshot["now"]["numbers"].values()) == {words.NOT_KNOWN}


def test_a_reader_gets_each_message_once_in_order() -> None:
    feed = Feed()
    begin = feed.number
    feed.show(status="firing")
    feed.mark("spike starts", 0.0)
    fill(feed, 2)

    messages = feed.since(begin)

    assert [message.kind for message in messages] == ["state", "mark", "sample", "sample"]
    assert [message.number for message in messages] == [begin + 1, begin + 2, begin + 3, begin + 4]
    assert feed.since(messages[1].number) == messages[2:]
    assert feed.since(feed.number) == []


def test_an_unchanged_state_sends_no_message() -> None:
    feed = Feed(status="ready")
    feed.show(status="ready")
    assert feed.number == 0

    feed.show(status="over")
    assert feed.number == 1


def test_a_reader_too_far_behind_gets_a_snapshot() -> None:
    feed = Feed()
    fill(feed, KEPT)
    assert len(feed.since(0)) == KEPT, "all messages are still kept"

    feed.mark("one more")

    assert len(snapshot_of(feed.since(0))["samples"]) == KEPT
    assert len(feed.since(1)) == KEPT


def test_after_a_new_beginning_each_reader_gets_a_snapshot() -> None:
    feed = Feed()
    fill(feed, 3)
    feed.mark("worker killed")
    seen = feed.number
    feed.begin("queue")
    assert snapshot_of(feed.since(seen))["marks"] == []

    feed.mark("spike starts")

    assert snapshot_of(feed.since(seen))["samples"] == []
    assert [message.kind for message in feed.since(seen + 1)] == ["mark"]


def test_an_unknown_number_gets_a_snapshot() -> None:
    assert snapshot_of(Feed().since(1_000_000))["samples"] == []


def test_an_hour_of_samples_and_marks_keep_what_the_views_show() -> None:
    feed = Feed()
    for number in range(20_000):
        feed.add(a_sample(number * EVERY_S))
        if number % 100 == 0:
            feed.mark("a mark", number * EVERY_S)

    snapshot = snapshot_of(feed.since(-1))
    assert len(feed.samples()) == len(snapshot["samples"]) == KEPT
    assert len(snapshot["marks"]) == KEPT_MARKS
    assert snapshot["samples"][-1]["at_s"] == 19_999 * EVERY_S
    assert len(feed.since(feed.number - KEPT)) == KEPT


def test_frequent_samples_leave_the_whole_curve_of_a_spike() -> None:
    feed = Feed()
    for number in range(1500):
        feed.add(a_sample(round(number * 0.05, 3)))

    kept = [sample.at_s for sample in feed.samples()]
    assert kept[0] == 0.0
    assert kept[-1] == 74.95, "the latest is always there"
    assert min(later - earlier for earlier, later in pairwise(kept[:-1])) >= 0.15


def test_a_streaming_reader_and_a_new_one_have_the_same_samples() -> None:
    feed, streamed = Feed(), []
    for number in range(100):
        feed.add(a_sample(round(number * 0.07, 3)))
    for message in feed.since(0):
        while streamed and streamed[-1] > message.data["after_s"]:
            streamed.pop()
        streamed.append(message.data["at_s"])

    assert streamed == [sample["at_s"] for sample in snapshot_of(feed.since(-1))["samples"]]


def test_a_sample_takes_the_place_of_those_that_are_not_earlier() -> None:
    feed = Feed()
    fill(feed, 5)

    feed.add(a_sample(0.6, accepted=7))

    assert [sample.at_s for sample in feed.samples()] == [0.2, 0.4, 0.6]
    assert feed.samples()[-1].accepted == 7


def test_rates_are_over_the_last_second_and_0_before() -> None:
    feed = Feed()
    early = fill(feed, 5)
    late = fill(feed, 10)

    assert (early.accepted_per_s, early.drain_rate_per_s) == (0.0, 0.0)
    assert (late.accepted_per_s, late.drain_rate_per_s) == (100.0, 50.0)
    feed.add(a_sample(3.0, accepted=late.accepted, settled=late.settled))
    idle = feed.samples()[-1]
    assert (idle.accepted_per_s, idle.drain_rate_per_s) == (0.0, 0.0)


def test_an_emptied_store_gives_no_negative_rate() -> None:
    feed = Feed()
    fill(feed, 10)
    feed.add(a_sample(3.0, accepted=0, settled=0))

    assert feed.samples()[-1].drain_rate_per_s == 0.0


def test_tracks_are_independent_and_the_latest_is_shown() -> None:
    feed = Feed()
    fill(feed, 10, track="naive")
    last = fill(feed, 5)

    assert (len(feed.samples("naive")), len(feed.samples("queue"))) == (10, 5)
    assert snapshot_of(feed.since(-1))["now"]["track"] == "queue"
    assert snapshot_of(feed.since(-1))["now"]["numbers"] == words.numbers(last)

    feed.begin("naive")
    now = snapshot_of(feed.since(-1))["now"]
    assert (now["track"], now["labels"]) == ("naive", words.NOTHING_YET)
    assert len(feed.samples("queue")) == 5, "it stays beside the new curve"


def test_readers_and_writers_in_many_threads_miss_nothing() -> None:
    feed, seen, failed = Feed(), [0] * 4, []

    def write(name: str) -> None:
        for number in range(100):
            feed.mark(f"{name} {number}")

    def read(reader: int) -> None:
        number, texts = 0, set()
        while len(texts) < 400 and not feed.is_closed:
            for message in feed.since(number):
                if message.number != number + 1:
                    failed.append(message)
                number = message.number
                texts.add(message.data["text"].strip())
        seen[reader] = len(texts)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in [*readers, *writers]:
        thread.start()
    for thread in [*readers, *writers]:
        thread.join(30)

    assert (seen, failed) == ([400] * 4, [])


def test_marks_are_kept_beside_a_result_for_a_replay(tmp_path: Path) -> None:
    feed = Feed()
    feed.mark("worker killed", 12.5)
    feed.save_marks(tmp_path)

    assert (tmp_path / MARKS_FILE).read_text() == '[\n {\n  "at_s": 12.5,\n  "text": "worker killed"\n }\n]\n'


def test_neighbouring_marks_are_placed_alike_in_the_stream_and_in_a_snapshot() -> None:
    feed = Feed()
    for text in ("killed", "restarted", "frozen"):
        feed.mark(text, 1.0)

    streamed = [message.data for message in feed.since(0)]
    assert [mark["text"] for mark in streamed] == ["killed", "restarted\n", "frozen"], "every second one is higher"
    assert snapshot_of(feed.since(-1))["marks"] == streamed
