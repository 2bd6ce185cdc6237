"""One moment of a live view, and its text: the same on the page, in the notebook and in the terminal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from overload_demo.lab.result import BaselineRun, SpikeResult

Track = Literal["queue", "naive"]
TRACKS: tuple[Track, ...] = ("queue", "naive")
NOT_KNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class LiveSample:
    """The numbers of one moment. The naive API has no queue: its depth is requests in flight.

    ``at_s`` counts from the start of the spike or the watch. ``accepted``, ``errors`` and ``settled`` are totals.
    Rates are over the last second, those of the naive API over the last ten. None means unknown: ``acceptance_p99_s``
    without an answer in the last second, ``errors`` without metrics or clients, ``lost`` before the reconciliation.
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
    accepted_per_s: float = 0.0
    drain_rate_per_s: float = 0.0


def _count(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:,.0f}"


def duration(value_s: float | None) -> str:
    """Return a time in milliseconds, or from one second on in seconds."""
    if value_s is None:
        return NOT_KNOWN
    return f"{value_s * 1000:,.0f} ms" if value_s < 1 else f"{value_s:,.1f} s"


# The tiles and the table, in their order: a stable name, a label, and the text.
NUMBERS: dict[str, tuple[str, Callable[[LiveSample], str]]] = {
    "accepted": ("accepted", lambda one: _count(one.accepted)),
    "errors": ("errors", lambda one: _count(one.errors)),
    "depth": ("queue depth", lambda one: _count(one.queue_depth)),
    "age": ("oldest age", lambda one: f"{one.oldest_age_s:,.1f} s"),
    "drain": ("drained per s", lambda one: _count(one.drain_rate_per_s)),
    "p99": ("p99 to the 202", lambda one: duration(one.acceptance_p99_s)),
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
    p99 = duration(sample.acceptance_p99_s)
    texts = {
        "latency": "nothing answered in the last second" if p99 == NOT_KNOWN else f"99 % within {p99} now",
        "depth": f"{sample.queue_depth:,} {waiting} now, {peak_depth:,} at most",
        "rates": f"{sample.accepted_per_s:,.0f} accepted and {sample.drain_rate_per_s:,.0f} done a second now,"
        f" after {sample.at_s:,.0f} s",
    }
    return {name: f"{title} over time. {api} API: {texts[name]}." for name, title in _CHARTS.items()}


def spike_text(result: SpikeResult, peak: float | None = None, empty_s: float | None = None) -> str:
    """Return the result of a spike in a line, with the errors of the predictions ``peak`` and ``empty_s``."""
    text = f"{result.verdict.capitalize()}: {result.accepted:,} of {result.offered:,} accepted, {result.lost:,} lost."
    if result.caveat:
        text = f"The numbers are not valid: {result.caveat}. {text}"
    for name, value, guess, unit in (
        ("Peak", result.peak_queue_depth, peak, ""),
        ("Empty after", result.seconds_to_empty, empty_s, " s"),
    ):
        text += f" {name} {value:,.0f}{unit}"
        if guess is not None:
            error = f", {guess / value - 1:+.0%}" if value else ""
            text += f" (predicted {guess:,.0f}{error})"
        text += "."
    return text


def baseline_text(run: BaselineRun) -> str:
    """Return the result of the naive API in a line."""
    sent, answered = run.summary.sent, run.summary.accepted
    return f"Without a queue: {answered:,} of {sent:,} answered in time, {sent - answered:,} clients got nothing."
