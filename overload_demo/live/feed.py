"""The stream of samples that page, notebook view and terminal show, and the text of each number.

A feed keeps two tracks, the queue API and the naive API, with the last :data:`KEPT` samples of each, the event marks,
and a small state. Each message has a number: a reader with message *n* requests the messages since *n*. A
reader that is new, or too far behind, gets a snapshot. Memory is bounded, and readers are not registered.
"""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from overload_demo.load.plan import duration

KEPT = 600  # samples of a track: two minutes at five a second
KEPT_MARKS = 200
MARKS_FILE = "marks.json"
EVERY_S = 0.2
APART_S = 0.75 * EVERY_S  # a queue that drains is sampled more often; keeping all would show only the end of it
RATE_OVER_S = 1.0  # a rate over less time is noise; it is 0 until then
BURST_S = 10.0  # the naive API answers in bursts as long as its clients' timeout: its rates are over that time

Track = Literal["queue", "naive"]
TRACKS: tuple[Track, ...] = ("queue", "naive")
NOT_KNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class LiveSample:
    """The numbers of one moment. The naive API has no queue: its depth is requests in flight.

    ``at_s`` counts from the start of the spike or the watch. ``accepted``, ``errors`` and ``settled`` are totals.
    Rates are over the last second, those of the naive API over the last ten. None means unknown: ``acceptance_p99_s``
    without an answer in the last second, ``errors`` without metrics or clients, ``lost`` before the reconciliation. The
    last five are of clients that retry: attempts sent, requests with a result in time, and the p99 of their times. Then
    ``accepted`` counts jobs, an attempt each, without a rate, and ``acceptance_p99_s`` is unknown.
    """

    track: Track
    at_s: float
    accepted: int
    errors: int | None
    queue_depth: int
    oldest_age_s: float
    settled: int
    acceptance_p99_s: float | None = None
    lost: int | None = None
    accepted_per_s: float | None = 0.0
    drain_rate_per_s: float = 0.0
    sent: int | None = None
    sent_per_s: float | None = None
    in_time: int | None = None
    in_time_per_s: float | None = None
    result_p99_s: float | None = None


@dataclass(frozen=True)
class Mark:
    """An event at ``at_s`` of the curves."""

    at_s: float
    text: str


@dataclass(frozen=True)
class Message:
    """A ``sample``, a ``mark``, the ``state``, or a ``snapshot`` that replaces all of them."""

    number: int
    kind: Literal["sample", "mark", "state", "snapshot"]
    data: dict[str, Any]


class Feed:
    """Samples, marks and state for any number of readers; thread-safe.

    ``number`` is that of the latest message. ``state`` holds ``title``, ``badge``, ``status``, ``result``, the
    predictions ``peak`` (jobs) and ``empty_s`` (seconds), the class's ``vote``, and the names of the ``controls`` that
    are possible now.
    """

    def __init__(self, **state: Any) -> None:
        self._lock = threading.Lock()
        self.number = 0
        self._zero_mono_s = time.monotonic()
        self._state: dict[str, Any] = {"title": "", "badge": "", "status": "", "vote": None}
        self._state |= {"peak": None, "empty_s": None} | state
        self._tracks: dict[Track, deque[LiveSample]] = {track: deque(maxlen=KEPT) for track in TRACKS}
        self._latest: Track = "queue"
        self._marks: deque[Mark] = deque(maxlen=KEPT_MARKS)
        self._recent: deque[Message] = deque(maxlen=KEPT)
        self.is_closed = False

    @property
    def elapsed_s(self) -> float:
        """The clock of the curves now, seconds."""
        return time.monotonic() - self._zero_mono_s

    @property
    def state(self) -> dict[str, Any]:
        """A copy of the state."""
        return dict(self._state)

    def samples(self, track: Track = "queue") -> Sequence[LiveSample]:
        """Return the kept samples of a track, in the order of time."""
        with self._lock:
            return tuple(self._tracks[track])

    def add(self, sample: LiveSample) -> None:
        """Add a sample, with its rates, in place of all samples that are not earlier.

        The latest sample is always kept; earlier ones are kept at least ``APART_S`` apart.
        """
        with self._lock:
            track = self._tracks[sample.track]
            while track and track[-1].at_s >= sample.at_s:
                track.pop()
            if len(track) > 1 and track[-1].at_s - track[-2].at_s < APART_S:
                track.pop()
            after_s = track[-1].at_s if track else -1.0
            over_s = RATE_OVER_S if sample.track == "queue" else BURST_S
            long_ago = (one for one in reversed(track) if sample.at_s - one.at_s >= over_s)
            sample = _with_rates(sample, next(long_ago, track[0] if track else sample))
            track.append(sample)
            self._latest = sample.track
            self._publish("sample", asdict(sample) | self._now() | {"after_s": after_s})

    def mark(self, text: str, at_s: float | None = None) -> None:
        """Add an event, now or at a time of the curves."""
        with self._lock:
            self._marks.append(Mark(round(self.elapsed_s if at_s is None else at_s, 2), text))
            self._publish("mark", self._placed_marks()[-1])

    def show(self, **state: Any) -> None:
        """Change the state; a message is sent only if it is different."""
        with self._lock:
            if self._state | state != self._state:
                self._state |= state
                self._publish("state", self._state)

    def begin(self, *tracks: Track, elapsed_s: float = 0.0) -> None:
        """Set the clock to ``elapsed_s``, clear these tracks and all marks, and show the first of them."""
        with self._lock:
            self._zero_mono_s = time.monotonic() - elapsed_s
            self._marks.clear()
            for track in tracks:
                self._tracks[track].clear()
            self._latest = tracks[0]
            self.number += 1
            self._recent.clear()  # each reader gets a snapshot

    def save_marks(self, folder: Path) -> None:
        """Write the marks beside a run's result, for a replay."""
        with self._lock:
            (folder / MARKS_FILE).write_text(json.dumps([asdict(mark) for mark in self._marks], indent=1) + "\n")

    def close(self) -> None:
        """End the stream, and with it its readers."""
        self.is_closed = True

    def since(self, number: int) -> list[Message]:
        """Return the messages after ``number`` (-1: none seen yet), or a snapshot when they are no longer kept."""
        with self._lock:
            known_from = self._recent[0].number - 1 if self._recent else self.number
            if known_from <= number <= self.number:
                return [message for message in self._recent if message.number > number]
            snapshot = {
                "state": dict(self._state),
                "marks": self._placed_marks(),
                "samples": [asdict(sample) for track in TRACKS for sample in self._tracks[track]],
                "now": self._now(),
            }
            return [Message(self.number, "snapshot", snapshot)]

    async def follow(self, number: int, every_s: float) -> AsyncIterator[Message | None]:
        """Yield each message after ``number`` until the feed is closed; None after each look, every ``every_s``."""
        is_over = False
        while not is_over:
            is_over = self.is_closed  # messages from before the close are still sent
            for message in self.since(number):
                number = message.number
                yield message
            yield None
            await asyncio.sleep(every_s)

    def _publish(self, kind: Literal["sample", "mark", "state"], data: Mapping[str, Any]) -> None:
        self.number += 1
        self._recent.append(Message(self.number, kind, dict(data)))

    def _placed_marks(self) -> list[dict[str, Any]]:
        """Return the marks, every second one a line higher, so that neighbours do not overlap."""
        return [{"at_s": mark.at_s, "text": mark.text + "\n" * (number % 2)} for number, mark in enumerate(self._marks)]

    def _now(self) -> dict[str, Any]:
        """Return the texts of the latest sample."""
        track = self._tracks[self._latest]
        sample, peak = (track[-1], max(one.queue_depth for one in track)) if track else (None, 0)
        return {"track": self._latest, "numbers": numbers(sample), "labels": labels(sample, peak)}


def _with_rates(sample: LiveSample, before: LiveSample) -> LiveSample:
    seconds = sample.at_s - before.at_s
    if seconds < RATE_OVER_S:
        return sample

    def rate(now: int | None, earlier: int | None) -> float | None:
        return None if now is None else max(0.0, round((now - (earlier or 0)) / seconds, 1))

    return replace(
        sample,
        accepted_per_s=rate(sample.accepted, before.accepted) if sample.sent is None else None,
        drain_rate_per_s=rate(sample.settled, before.settled) or 0.0,
        sent_per_s=rate(sample.sent, before.sent),
        in_time_per_s=rate(sample.in_time, before.in_time),
    )


def _count(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:,.0f}"


def _time(value_s: float | None) -> str:
    return NOT_KNOWN if value_s is None else duration(value_s)


# The tiles and the table, in their order: a stable name, a label, and the text.
NUMBERS: dict[str, tuple[str, Callable[[LiveSample], str]]] = {
    "accepted": ("accepted", lambda one: _count(one.accepted)),
    "errors": ("errors", lambda one: _count(one.errors)),
    "depth": ("queue depth", lambda one: _count(one.queue_depth)),
    "age": ("oldest age", lambda one: f"{one.oldest_age_s:,.1f} s"),
    "drain": ("drained per s", lambda one: _count(one.drain_rate_per_s)),
    "p99": ("p99 to the 202", lambda one: _time(one.acceptance_p99_s)),
    "lost": ("lost", lambda one: _count(one.lost)),
}
_CHARTS = {"latency": "Time to the answer", "depth": "Queue depth", "rates": "Rates"}
NOTHING_YET = {name: f"{title} over time: nothing yet." for name, title in _CHARTS.items()}


def numbers(sample: LiveSample | None) -> dict[str, str]:
    """Return the text of each of :data:`NUMBERS`."""
    return {name: NOT_KNOWN if sample is None else text(sample) for name, (_, text) in NUMBERS.items()}


def labels(sample: LiveSample | None, peak_depth: int) -> dict[str, str]:
    """Return the text alternative of each chart; ``peak_depth`` is the highest point of the kept curve."""
    if sample is None:
        return NOTHING_YET
    api, waiting = ("queue", "jobs waiting") if sample.track == "queue" else ("naive", "requests in flight")
    p99 = _time(sample.acceptance_p99_s if sample.in_time is None else sample.result_p99_s)
    arrives = f"{_count(sample.accepted_per_s)} accepted"
    if sample.sent_per_s is not None:
        arrives = f"{sample.sent_per_s:,.0f} attempts, {_count(sample.in_time_per_s)} results in time"
    texts = {
        "latency": "nothing answered in the last second" if p99 == NOT_KNOWN else f"99 % within {p99} now",
        "depth": f"{sample.queue_depth:,} {waiting} now, {peak_depth:,} at most",
        "rates": f"{arrives} and {sample.drain_rate_per_s:,.0f} done a second now, after {sample.at_s:,.0f} s",
    }
    return {name: f"{title} over time. {api} API: {texts[name]}." for name, title in _CHARTS.items()}
