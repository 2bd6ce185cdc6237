"""The one stream of samples that page, notebook view and terminal show.

A feed keeps two tracks over time, the queue API and the naive one, the last :data:`KEPT` samples of each, the event
marks, and a little state. Everything added has a number, so a reader that has seen number *n* asks for what came since;
one that has missed too much, or comes anew, gets the whole. Nothing here knows who reads, and memory is bounded.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from overload_demo.live import samples as words
from overload_demo.live.sample import TRACKS, LiveSample, Track

KEPT = 600  # samples of a track: two minutes at five a second
KEPT_MARKS = 200
MARKS_FILE = "marks.json"
EVERY_S = 0.2
APART_S = 0.75 * EVERY_S  # a queue that drains is looked at more often: a view of that would show its end only
RATE_OVER_S = 1.0  # a rate over less than that is noise, and 0 until then
BURST_S = 10.0  # the naive API's answers leave in bursts no longer than its clients wait: its rates are over that time


@dataclass(frozen=True)
class Mark:
    """Something that happened, at ``at_s`` of the curves."""

    at_s: float
    text: str


@dataclass(frozen=True)
class Message:
    """One thing a reader is told: a ``sample``, a ``mark``, the ``state``, or the ``whole`` to begin again with."""

    number: int
    kind: Literal["sample", "mark", "state", "whole"]
    data: dict[str, Any]


class Feed:
    """Samples, marks and state for any number of readers; may be used from any thread.

    ``state`` holds what is neither: ``title``, ``badge``, ``status``, the class's predictions ``peak`` (jobs) and
    ``empty_s`` (seconds), ``result`` and which controls there are.
    """

    def __init__(self, **state: Any) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._zero_mono_s = time.monotonic()
        self._state: dict[str, Any] = {"title": "", "badge": "", "status": "", "peak": None, "empty_s": None} | state
        self._tracks: dict[Track, deque[LiveSample]] = {track: deque(maxlen=KEPT) for track in TRACKS}
        self._latest: Track = "queue"
        self._marks: deque[Mark] = deque(maxlen=KEPT_MARKS)
        self._recent: deque[Message] = deque(maxlen=KEPT)
        self.is_closed = False

    @property
    def number(self) -> int:
        """Of the latest message."""
        return self._number

    @property
    def elapsed_s(self) -> float:
        """The clock of the curves now, seconds."""
        return time.monotonic() - self._zero_mono_s

    @property
    def state(self) -> dict[str, Any]:
        """A copy of the state."""
        return dict(self._state)

    def samples(self, track: Track = "queue") -> Sequence[LiveSample]:
        """Those kept of a track, in the order of time."""
        with self._lock:
            return tuple(self._tracks[track])

    def add(self, sample: LiveSample) -> None:
        """Tell a sample, with its rates; it takes the place of any that is not earlier.

        The latest is always there; those before it are kept at least ``APART_S`` apart.
        """
        with self._lock:
            track = self._tracks[sample.track]
            while track and track[-1].at_s >= sample.at_s:
                track.pop()
            if len(track) > 1 and track[-1].at_s - track[-2].at_s < APART_S:
                track.pop()
            after_s = track[-1].at_s if track else -1.0
            over_s = RATE_OVER_S if sample.track == "queue" else BURST_S
            oldest = track[0] if track else sample
            sample = _with_rates(
                sample, next((one for one in reversed(track) if sample.at_s - one.at_s >= over_s), oldest)
            )
            track.append(sample)
            self._latest = sample.track
            self._tell("sample", asdict(sample) | self._now() | {"after_s": after_s})

    def mark(self, text: str, at_s: float | None = None) -> None:
        """Tell that something has happened, now or at a time of the curves."""
        with self._lock:
            mark = Mark(round(self.elapsed_s if at_s is None else at_s, 2), text)
            self._marks.append(mark)
            self._tell("mark", self._placed(mark, len(self._marks)))

    def show(self, **state: Any) -> None:
        """Change the state, and tell it if that was a change."""
        with self._lock:
            if self._state | state != self._state:
                self._state |= state
                self._tell("state", self._state)

    def begin(self, *tracks: Track, elapsed_s: float = 0.0) -> None:
        """Set the clock to ``elapsed_s``, forget these tracks and all marks, and show the first of them."""
        with self._lock:
            self._zero_mono_s = time.monotonic() - elapsed_s
            self._marks.clear()
            for track in tracks:
                self._tracks[track].clear()
            self._latest = tracks[0]
            self._number += 1
            self._recent.clear()  # whoever has seen anything of before gets the whole

    def save_marks(self, folder: Path) -> None:
        """Write the marks beside a run's result, for a replay."""
        with self._lock:
            (folder / MARKS_FILE).write_text(json.dumps([asdict(mark) for mark in self._marks], indent=1) + "\n")

    def close(self) -> None:
        """Nothing more will come; readers end."""
        self.is_closed = True

    def since(self, number: int) -> list[Message]:
        """What came after message ``number`` (-1: nothing seen yet), or the whole when that is no longer known."""
        with self._lock:
            known_from = self._recent[0].number - 1 if self._recent else self._number
            if not known_from <= number <= self._number:
                return [Message(self._number, "whole", self._whole())]
            return [message for message in self._recent if message.number > number]

    def _tell(self, kind: Literal["sample", "mark", "state"], data: Mapping[str, Any]) -> None:
        self._number += 1
        self._recent.append(Message(self._number, kind, dict(data)))

    def _whole(self) -> dict[str, Any]:
        return {
            "state": dict(self._state),
            "marks": [self._placed(mark, number) for number, mark in enumerate(self._marks, 1)],
            "samples": [asdict(sample) for track in TRACKS for sample in self._tracks[track]],
            "now": self._now(),
        }

    def _placed(self, mark: Mark, number: int) -> dict[str, Any]:
        """Every second one is written a line higher, so that neighbours can be read."""
        return {"at_s": mark.at_s, "text": mark.text + "\n" * (number % 2 == 0)}

    def _now(self) -> dict[str, Any]:
        """The latest sample in words."""
        track = self._tracks[self._latest]
        sample, peak = (track[-1], max(one.queue_depth for one in track)) if track else (None, 0)
        return {"track": self._latest, "numbers": words.numbers(sample), "labels": words.labels(sample, peak)}


def _with_rates(sample: LiveSample, before: LiveSample) -> LiveSample:
    seconds = sample.at_s - before.at_s
    if seconds < RATE_OVER_S:
        return sample
    return replace(
        sample,
        accepted_per_s=max(0.0, round((sample.accepted - before.accepted) / seconds, 1)),
        drain_rate_per_s=max(0.0, round((sample.settled - before.settled) / seconds, 1)),
    )
