"""Fill a feed from a spike: from its reports while it runs, or from a recorded result on any system."""

import asyncio
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from overload_demo.errors import ConfigurationError
from overload_demo.lab.result import SCHEMA_VERSION, BaselineRun, SpikeResult, first_problem
from overload_demo.lab.spike_plan import SpikeProgress
from overload_demo.live.feed import MARKS_FILE, Feed, Mark
from overload_demo.live.samples import LiveSample, Track, spike_text

_STATUS = {
    "calibrate": "calibrating: how much does this machine take?",
    "fire": "firing: {sent:,} of {offered:,} requests sent",
    "drain": "all sent; the queue drains",
    "reconcile": "reconciling every accepted id",
    "over": "over",
    "baseline": "the same load on the naive API: {sent:,} of {offered:,} sent",
}
_MARKS = TypeAdapter(list[Mark])


class SpikeFeed:
    """Adds each report of a spike, or of several in turn, to a feed; a clock that restarts restarts the track."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._track: Track | None = None
        self._last_s = 0.0

    def __call__(self, progress: SpikeProgress) -> None:
        """Take one report."""
        load, state = progress.load, self._feed.state
        if progress.result is not None:  # its text names the errors of the feed's predictions
            self._feed.show(result=spike_text(progress.result, state["peak"], state["empty_s"]))
        self._feed.show(status=_STATUS[progress.stage].format(sent=load.sent if load else 0, offered=progress.offered))
        if load is None:
            return
        track: Track = "naive" if progress.stage == "baseline" else "queue"
        if track != self._track or load.elapsed_s < self._last_s:
            self._feed.begin(track, elapsed_s=load.elapsed_s)
            self._feed.mark("spike starts", 0.0)
        self._track, self._last_s = track, load.elapsed_s
        sample = LiveSample(
            track=track,
            at_s=round(load.elapsed_s, 3),
            accepted=load.accepted,
            errors=load.errors,
            queue_depth=progress.queue_depth,
            oldest_age_s=progress.oldest_age_s,
            settled=progress.settled,
            acceptance_p99_s=load.response_p99_s,
            lost=progress.lost,
        )
        self._feed.add(sample)


class Replay:
    """A run folder of ``spike`` or of the stage. Raises :class:`ConfigurationError` if it does not hold a valid run."""

    def __init__(self, folder: Path) -> None:
        self._result = _read(folder)
        try:
            self._samples = list(spike_samples(self._result))
            self._naive = [] if self._result.baseline is None else list(baseline_samples(self._result.baseline))
        except IndexError:
            raise ConfigurationError(f"{folder / 'result.json'} has no samples, or not all of each") from None
        self._marks = _read_marks(folder / MARKS_FILE)

    async def play(self, feed: Feed, speed: float = 1.0) -> None:
        """Play the run once at ``speed`` times its pace; the curves of the naive API are complete from the start."""
        result = self._result
        feed.show(title=f"Recorded {result.recorded_at}", badge="recorded", status=result.conditions.command)
        feed.begin("queue", "naive")
        for sample in self._naive:
            feed.add(sample)
        marks = list(self._marks)
        began = time.monotonic()
        for sample in self._samples:
            await asyncio.sleep(began + sample.at_s / speed - time.monotonic())
            while marks and marks[0].at_s <= sample.at_s:
                mark = marks.pop(0)
                feed.mark(mark.text, mark.at_s)
            feed.add(sample)
        feed.show(result=spike_text(result), status=f"over; {result.conditions.command}")


def spike_samples(result: SpikeResult) -> Iterator[LiveSample]:
    """Yield the samples of a spike from its first request on; only the last one has ``lost``."""
    series, errors = result.series, result.offered - result.accepted
    accepted, failed = list(accumulate(series.accepted_per_s)), list(accumulate(series.failed_per_s))
    last_s = series.sampled_at_s[-1]
    for number, at_s in enumerate(series.sampled_at_s):
        if at_s < 0:
            continue
        second = int(at_s)
        is_last = at_s == last_s
        yield LiveSample(
            track="queue",
            at_s=at_s,
            accepted=result.accepted if is_last else round(_total_at(accepted, at_s)),
            errors=errors if is_last else round(_total_at(failed, at_s)),
            queue_depth=series.queue_depth[number],
            oldest_age_s=series.oldest_age_s[number],
            settled=series.settled[number],
            acceptance_p99_s=series.acceptance_p99_s[second] if second < len(series.acceptance_p99_s) else None,
            lost=result.lost if is_last else None,
        )


def baseline_samples(run: BaselineRun) -> Iterator[LiveSample]:
    """Yield the samples of a run of the naive API, one a second."""
    series = run.series
    answered, failed = list(accumulate(run.answered_per_s())), list(accumulate(series.failed_per_s))
    for number, at_s in enumerate(series.start_s):
        yield LiveSample(
            track="naive",
            at_s=at_s + 1.0,  # the end of its second
            accepted=round(answered[number]),
            errors=round(failed[number]),
            queue_depth=round(series.in_flight[number]),
            oldest_age_s=0.0,
            settled=round(answered[number]),
            acceptance_p99_s=series.response_p99_s[number],
        )


def _total_at(totals: list[float], at_s: float) -> float:
    """Interpolate a total at a moment, from totals at the end of each second."""
    second = int(at_s)
    if second >= len(totals):
        return totals[-1] if totals else 0.0
    before = totals[second - 1] if second else 0.0
    return before + (totals[second] - before) * (at_s - second)


def _read(folder: Path) -> SpikeResult:
    path = folder / "result.json"
    try:
        return SpikeResult.read(path)
    except OSError as error:
        raise ConfigurationError(f"no run to replay: {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("schema_version",):
            raise ConfigurationError(f"{path} is of schema {first['input']!r}, not of {SCHEMA_VERSION}") from None
        raise ConfigurationError(f"{path} is not the result of a spike: {first_problem(error)}") from None


def _read_marks(path: Path) -> list[Mark]:
    try:
        return _MARKS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError):
        raise ConfigurationError(f"{path} does not hold the marks of a run") from None
