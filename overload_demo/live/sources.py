"""Where the samples of a feed come from: a spike while it runs, a recorded one, or an API that is watched."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from pathlib import Path
from typing import Self

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from pydantic import HttpUrl, TypeAdapter, ValidationError
from rich.console import Console
from rich.live import Live
from rich.table import Table

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.lab import off_by
from overload_demo.lab.result import SCHEMA_VERSION, BaselineRun, SpikeResult, SpikeSeries, first_problem
from overload_demo.lab.spike_plan import SpikeProgress
from overload_demo.live.ballot import vote_view
from overload_demo.live.feed import EVERY_S, MARKS_FILE, NOT_KNOWN, NUMBERS, RATE_OVER_S, Feed, LiveSample, Mark, Track

SERVICE = "overload-safe-queue-api"
ANSWER_WITHIN_S = 5.0
FIRST_ERROR = 429  # answers below it report a mistake of the client
_NO_ANSWER = (OSError, ValueError, KeyError, TypeError)  # also one without the numbers
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
            self._feed.mark("first request", 0.0)
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
        if progress.enqueued is not None:
            sample = _of_retries(sample, progress.enqueued, load.attempts)
        self._feed.add(sample)


def _of_retries(sample: LiveSample, enqueued: int, sent: int) -> LiveSample:
    """Separate what the clients of ``sample`` count, requests with a result in time, from the jobs enqueued."""
    in_time, p99_s = sample.accepted, sample.acceptance_p99_s
    jobs = replace(sample, accepted=enqueued, accepted_per_s=None, acceptance_p99_s=None)
    return replace(jobs, sent=sent, in_time=in_time, result_p99_s=p99_s)


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
        feed.show(
            title=f"Recorded {result.recorded_at[:10]}", badge="recorded", status=result.conditions.command, vote=None
        )
        feed.begin("queue", "naive")
        for sample in self._naive:
            feed.add(sample)
        marks, votes = list(self._marks), list(result.votes)
        began = time.monotonic()
        for sample in self._samples:
            await asyncio.sleep(began + sample.at_s / speed - time.monotonic())
            while marks and marks[0].at_s <= sample.at_s:
                mark = marks.pop(0)
                feed.mark(mark.text, mark.at_s)
            while votes and votes[0].asked_at_s <= sample.at_s:
                feed.show(vote=vote_view(votes.pop(0), is_open=False, has_answer=True))
            feed.add(sample)
        for vote in votes:  # asked after the last sample
            feed.show(vote=vote_view(vote, is_open=False, has_answer=True))
        feed.show(result=spike_text(result), status=f"over; {result.conditions.command}")


def spike_samples(result: SpikeResult) -> Iterator[LiveSample]:
    """Yield the samples of a spike from its first request on; only the last one has ``lost``."""
    series, load, last_s = result.series, result.load, result.series.sampled_at_s[-1]
    accepted, failed = [_totals_at(series.sampled_at_s, one) for one in (series.accepted_per_s, series.failed_per_s)]
    sent = _totals_at(series.sampled_at_s, series.attempts_per_s)
    for number, at_s in enumerate(series.sampled_at_s):
        if at_s < 0:
            continue
        second = int(at_s)
        is_last = at_s == last_s
        sample = LiveSample(
            track="queue",
            at_s=at_s,
            accepted=load.accepted if is_last else round(accepted[number]),
            errors=load.planned - load.accepted if is_last else round(failed[number]),
            queue_depth=series.queue_depth[number],
            oldest_age_s=series.oldest_age_s[number],
            settled=series.settled[number],
            acceptance_p99_s=series.acceptance_p99_s[second] if second < len(series.acceptance_p99_s) else None,
            lost=result.lost if is_last else None,
        )
        if series.attempts_per_s:
            enqueued = series.queue_depth[number] + series.in_flight[number] + series.settled[number]
            sample = _of_retries(sample, enqueued, round(sent[number]))
        yield sample


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


def _totals_at(at_s: list[float], per_s: list[float]) -> list[float]:
    """Interpolate the running total of a rate, known for each whole second, at other moments."""
    return np.interp(at_s, range(len(per_s) + 1), [0.0, *accumulate(per_s)]).tolist()


def _read(folder: Path) -> SpikeResult:
    path = folder / "result.json"
    try:
        return SpikeResult.read(path)
    except OSError as error:
        raise ConfigurationError(f"no run to replay: {path}: {error.strerror}") from None
    except ValidationError as error:
        for one in error.errors():
            if one["loc"] == ("schema_version",):
                raise ConfigurationError(f"{path} is of schema {one['input']!r}, not of {SCHEMA_VERSION}") from None
        raise ConfigurationError(f"{path} is not the result of a spike: {first_problem(error)}") from None


def _read_marks(path: Path) -> list[Mark]:
    try:
        return _MARKS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError):
        raise ConfigurationError(f"{path} does not hold the marks of a run") from None


@dataclass(frozen=True)
class ApiCounts:
    """Counts since the API started: error answers, and acceptances by the upper bound of their time, seconds."""

    errors: int
    within: dict[float, float]

    @classmethod
    def read(cls, text: str) -> Self:
        """Read Prometheus' text format. Raises ValueError for anything else."""
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        statuses = [(one.labels["status"], one.value) for one in samples if one.name == "overload_http_requests_total"]
        errors = sum(count for status, count in statuses if status.isdigit() and int(status) >= FIRST_ERROR)
        times = [one for one in samples if one.name == "overload_acceptance_seconds_bucket"]
        return cls(int(errors), dict(sorted((float(one.labels["le"]), one.value) for one in times)))

    def p99_s(self, before: "ApiCounts") -> float | None:
        """Return the time within which 99 % of the acceptances since ``before`` fell, interpolated in a bucket.

        The rule is that of Prometheus' ``histogram_quantile``. None without acceptances, or if the API has restarted.
        """
        since = {bound: count - before.within.get(bound, 0.0) for bound, count in self.within.items()}
        wanted = 0.99 * max(since.values(), default=0.0)
        if wanted <= 0 or min(since.values()) < 0:
            return None
        lower, below = 0.0, 0.0
        for bound, count in since.items():
            if count >= wanted:
                share = (wanted - below) / (count - below)
                return lower if bound == float("inf") else round(lower + share * (bound - lower), 4)
            lower, below = bound, count
        return None


class ApiWatch:
    """Adds samples of the API at ``url`` to a feed. An API that stops answering leaves a mark and is polled further.

    The key is that in OVERLOAD_API_KEY. Errors and acceptance times are the API's own counts: requests that never
    reached it are not among them.
    """

    def __init__(self, url: str, feed: Feed) -> None:
        from overload_demo.lab.parts import JsonConnection  # it needs Unix, a replay does not

        reason = "it begins with http:// or https://, and a host follows"
        if "@" in url:  # the value may contain a password, and the page would show it
            raise ConfigurationError(f"the URL of an API has no user name: {reason}")
        try:
            HttpUrl(url)
        except ValidationError:
            raise ConfigurationError(f"{url!r} is not the URL of an API: {reason}") from None
        key = load_settings().overload_api_key
        headers = {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}
        self._url, self._feed = url, feed
        self._connection = JsonConnection(url, ANSWER_WITHIN_S, headers)
        self._counts: ApiCounts | None = None
        self._counted_at = -RATE_OVER_S
        self._p99_s: float | None = None

    async def check(self) -> None:
        """Raise :class:`ConfigurationError` with one line unless this project's API answers."""
        try:
            health = await asyncio.to_thread(self._connection.get, "/health")
        except OSError as error:
            raise ConfigurationError(f"nothing to watch at {self._url}: {error}") from None
        except ValueError:
            health = {}
        if health.get("service") != SERVICE:
            raise ConfigurationError(f"the server at {self._url} is not this project's API")

    async def run(self) -> None:
        """Watch until cancelled."""
        answers = True
        while True:
            due = time.monotonic() + EVERY_S
            try:
                self._feed.add(await asyncio.to_thread(self._sample))
                if not answers:
                    self._feed.mark("API answers again")
                    self._feed.show(status=f"watching {self._url}")
                answers = True
            except _NO_ANSWER:
                if answers:
                    self._feed.mark("API does not answer")
                    self._feed.show(status=f"{self._url} does not answer; asking again")
                answers = False
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _sample(self) -> LiveSample:
        """Return the queue's numbers now, with the API's counts of the last second. Blocks."""
        stats = self._connection.get("/queue/stats")
        if time.monotonic() - self._counted_at >= RATE_OVER_S:
            self._counted_at = time.monotonic()
            counts = ApiCounts.read(self._connection.get_text("/metrics"))
            self._p99_s = None if self._counts is None else counts.p99_s(self._counts)
            self._counts = counts
        return LiveSample(
            track="queue",
            at_s=round(self._feed.elapsed_s, 3),
            accepted=int(stats["accepted"]),
            errors=None if self._counts is None else self._counts.errors,
            queue_depth=int(stats["queue_length"]),
            oldest_age_s=float(stats["oldest_age_s"]),
            settled=int(stats["done"]) + int(stats["failed"]),
            acceptance_p99_s=self._p99_s,
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


async def show_in_terminal(feed: Feed, console: Console) -> None:
    """Show the latest sample and the state of ``feed`` in place, until cancelled; a file gets the last of them."""
    with Live(console=console, get_renderable=lambda: _table(feed), refresh_per_second=1 / EVERY_S):
        await asyncio.Event().wait()


def _table(feed: Feed) -> Table:
    samples = feed.samples()
    table = Table(title=feed.state["title"], caption=feed.state["status"], title_justify="left", show_edge=False)
    table.add_column("now")
    table.add_column("", justify="right", min_width=12)
    for label, text in NUMBERS.values():
        table.add_row(label, text(samples[-1]) if samples else NOT_KNOWN)
    return table


def spike_text(result: SpikeResult, peak: float | None = None, empty_s: float | None = None) -> str:
    """Return the result of a spike in a line, with the errors of the predictions ``peak`` and ``empty_s``."""
    text = f"{result.verdict.capitalize()}: {result.accepted:,} of {result.offered:,} accepted, {result.lost_text}."
    if clients := result.load.retry:
        text = f"{clients.accepted:,} of {clients.requests:,} requests got a result in time, none for"
        text += f" {longest_outage_s(result.series):,.0f} s; {clients.attempts:,} attempts, {result.lost_text}."
    if result.caveat:
        text = f"The numbers are not valid: {result.caveat}. {text}"
    for name, value, guess, unit in (
        ("Peak", result.peak_queue_depth, peak, ""),
        ("Not empty after" if result.unended else "Empty after", result.seconds_to_empty, empty_s, " s"),
    ):
        text += f" {name} {value:,.0f}{unit}"
        if guess is not None:
            error = f", {off_by(guess, value)}" if value else ""
            text += f" (predicted {guess:,.0f}{error})"
        text += "."
    return text


def longest_outage_s(series: SpikeSeries) -> float:
    """Return the longest time in which less than a tenth of the offered requests had a result, seconds."""
    lacks = [got < 0.1 * offered for got, offered in zip(series.accepted_per_s, series.offered_per_s, strict=True)]
    return float(max((len(list(run)) for lacking, run in groupby(lacks) if lacking), default=0))


def baseline_text(run: BaselineRun) -> str:
    """Return the result of the naive API in a line."""
    sent, answered = run.summary.sent, run.summary.accepted
    return f"Without a queue: {answered:,} of {sent:,} answered in time, {sent - answered:,} clients got nothing."
