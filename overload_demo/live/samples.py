"""The live numbers as words: the same on the page, in the notebook and in the terminal."""

from collections.abc import Callable

from overload_demo.lab.baseline import BaselineRun
from overload_demo.lab.result import SpikeResult
from overload_demo.live.sample import LiveSample

NOT_KNOWN = "\N{EN DASH}"


def _count(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:,.1f} s"


def milliseconds(value_s: float | None) -> str:
    """A time to the answer, in the unit that a person reads at a glance."""
    if value_s is None:
        return NOT_KNOWN
    return f"{value_s * 1000:,.0f} ms" if value_s < 1 else f"{value_s:,.1f} s"


# What the tiles and the table show, in their order: a name that stays, a label, and the text.
NUMBERS: dict[str, tuple[str, Callable[[LiveSample], str]]] = {
    "accepted": ("accepted", lambda one: _count(one.accepted)),
    "errors": ("errors", lambda one: _count(one.errors)),
    "depth": ("queue depth", lambda one: _count(one.queue_depth)),
    "age": ("oldest age", lambda one: _seconds(one.oldest_age_s)),
    "drain": ("drained per s", lambda one: _count(one.drain_rate_per_s)),
    "p99": ("p99 to the 202", lambda one: milliseconds(one.acceptance_p99_s)),
    "lost": ("lost", lambda one: _count(one.lost)),
}


NOTHING_YET = {
    "latency": "Time to the answer over time: nothing yet.",
    "depth": "Queue depth over time: nothing yet.",
    "rates": "Rates over time: nothing yet.",
}


def numbers(sample: LiveSample | None) -> dict[str, str]:
    """The text of each of :data:`NUMBERS`."""
    return {name: NOT_KNOWN if sample is None else text(sample) for name, (_, text) in NUMBERS.items()}


def labels(sample: LiveSample | None, peak_depth: int) -> dict[str, str]:
    """What each chart shows, for whoever cannot see it; ``peak_depth`` is the highest point of the kept curve."""
    if sample is None:
        return NOTHING_YET
    who = "queue API" if sample.track == "queue" else "naive API"
    waiting = "jobs waiting" if sample.track == "queue" else "requests in flight"
    p99 = milliseconds(sample.acceptance_p99_s)
    answered = "nothing answered in the last second" if p99 == NOT_KNOWN else f"99 % within {p99} now"
    return {
        "latency": f"Time to the answer over time. {who}: {answered}.",
        "depth": f"Queue depth over time. {who}: {sample.queue_depth:,} {waiting} now, {peak_depth:,} at most.",
        "rates": f"Rates over time. {who}: {sample.accepted_per_s:,.0f} accepted and {sample.drain_rate_per_s:,.0f}"
        f" done a second now, after {sample.at_s:,.0f} s.",
    }


def absorbed(result: SpikeResult, peak: float | None = None, empty_s: float | None = None) -> str:
    """What a spike came to, in a line, and how far off the class was."""
    text = f"{result.verdict.capitalize()}: {result.accepted:,} of {result.offered:,} accepted, {result.lost:,} lost."
    measured = (
        ("Peak", result.peak_queue_depth, peak, ""),
        ("Empty after", result.seconds_to_empty, empty_s, " s"),
    )
    if result.caveat:
        text = f"It says nothing: {result.caveat}. {text}"
    for name, value, guess, unit in measured:
        text += f" {name} {value:,.0f}{unit}"
        if guess is not None:
            error = f", {guess / value - 1:+.0%}" if value else ""
            text += f" (predicted {guess:,.0f}{error})"
        text += "."
    return text


def collapsed(run: BaselineRun) -> str:
    """What the naive API came to, in a line."""
    sent, answered = run.summary.sent, run.summary.accepted
    return f"Without a queue: {answered:,} of {sent:,} answered in time, {sent - answered:,} clients got nothing."
