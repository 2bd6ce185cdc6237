"""Exercises of notebook 06: when a retry storm sustains itself, and what ends it."""

import math
import numbers
from collections.abc import Callable
from typing import Any

from overload_demo.course.exercise import MEASURED, called, exercise, finite, function, multiple_choice, number, shown
from overload_demo.lab import theory

Bucket = Callable[[float, int], Any]

multiple_choice(
    "06.busy",
    "abandoned jobs",
    {
        "nothing": "The worker did about as many jobs a second as it can: look at the number printed above.",
        "one job again and again": "Each attempt is a job with an id of its own, and the worker does each one once.",
        "failed jobs": "Every one of them succeeds and gets its result stored. The question is whether a client still "
        "polls for it.",
        "new jobs first": "First come, first served: a new job waits behind everything that is in the queue.",
    },
    "Compare how long a job waits in the queue with how long its client waits for it.",
    "When such a job is at its turn, its client has given up on it and has posted another one.",
)


@exercise(
    "06.critical",
    "While no result is in time, each request becomes one first attempt and R retries.",
    "The queue neither grows nor drains if λ (1 + R) = μ: solve for λ.",
)
def _critical(answer: object, *, drain_per_s: float, retries: int, best_per_s: float, offered_per_s: float) -> str:
    mistakes = {
        best_per_s * theory.storm_load(retries): "1 / work_s is the best case. Take the μ that the storm has measured.",
        offered_per_s: "So many arrive in this run. At the edge each of them is sent 1 + R times.",
        offered_per_s
        * theory.storm_load(retries): "The edge depends on what the worker can do, not on what arrives now.",
        drain_per_s: "That is the limit without any retry. In a storm each request arrives several times.",
        drain_per_s / retries: "A request is sent once, and R times again: you have left out the first attempt.",
        drain_per_s * (1 + retries): "Retries are more work for the same worker: it can take fewer requests, not more.",
        theory.storm_load(retries): "That is the share of the capacity. Asked are requests a second.",
        drain_per_s * (1 - theory.storm_load(retries)): "That is the part of the capacity that retries would take.",
    }
    return number(answer, drain_per_s * theory.storm_load(retries), within=MEASURED, mistakes=mistakes)


@exercise(
    "06.slow",
    "The queue shrinks by what leaves, less everything that arrives: first attempts and retries.",
    "Jobs that are too many ÷ (μ - λ (1 + R)).",
)
def _slow(
    answer: object,
    *,
    too_many: float,
    arrival_per_s: float,
    drain_per_s: float,
    retries: int,
    measured_per_s: float,
    waiting: float,
) -> str:
    mistakes = {
        theory.storm_seconds(waiting, arrival_per_s, drain_per_s, retries): (
            "Until all jobs that wait are gone it takes so long. Results are in time earlier: some jobs may still wait."
        ),
        theory.storm_seconds(too_many, arrival_per_s, measured_per_s, retries): (
            "You took the μ of the real stack. The model's worker needs exactly work_s for a job."
        ),
        too_many / drain_per_s: "You have left out that requests still arrive meanwhile.",
        too_many / (drain_per_s - arrival_per_s): "You have counted new requests only. Each of them is still repeated.",
        too_many / (drain_per_s - arrival_per_s * retries): "Besides its R retries each request has a first attempt.",
        too_many / (arrival_per_s * (1 + retries)): "That is how long such a queue takes to *fill*.",
    }
    right = theory.storm_seconds(too_many, arrival_per_s, drain_per_s, retries)
    return number(answer, right, within=MEASURED, mistakes=mistakes)


multiple_choice(
    "06.backoff",
    "as many attempts",
    {
        "waits too short": "Compare the ends of the curves: with longer waits the retries come later, but in the end "
        "as many of them arrive a second.",
        "all at one moment": "Jitter removes exactly that. Compare the panel with jitter: its clients are spread, and "
        "get nothing either.",
        "too few retries": "Each further retry is one more job before the worker: (1 + R) grows.",
        "worker too slow": "The same worker keeps up with the new requests before the freeze, with more than half of "
        "its time free.",
    },
    "Look at what is sent a second at the end of each of the three runs.",
    "A wait changes when a retry is sent. What would change how many are sent?",
)


@exercise(
    "06.bucket",
    "Three steps, in this order: add what the new requests earn, cut at burst, take a token if there is a whole one.",
    "tokens = min(burst, tokens + ratio * requests); then return (True, tokens - 1) or (False, tokens).",
)
def _bucket(answer: Any, *, ratio: float, burst: float) -> str:
    return (
        function(answer, f"take({burst:g}, 0)")
        or _is_no_pair(called(answer, burst, 0))
        or _is_silent(answer)
        or _takes_wrongly(answer)
        or _earns_wrongly(answer, ratio, burst)
        or _differs(answer, ratio, burst)
    )


def _is_no_pair(returned: object) -> str:
    if not isinstance(returned, tuple) or len(returned) != 2:
        return f"Return two values, (allowed, tokens), not {shown(returned)}."
    allowed, tokens = returned
    if isinstance(tokens, bool) and not isinstance(allowed, bool):
        return "The other way round: first whether the retry is allowed, then the tokens that are left."
    if not isinstance(allowed, bool) and not _is_number(allowed):
        return f"The first value is True or False, not {shown(allowed)}."
    return "" if _is_number(tokens) else f"The second value is the number of tokens left, not {shown(tokens)}."


def _is_silent(take: Bucket) -> str:
    if take(0.0, 0) is not None:
        return ""
    return (
        "With an empty bucket your function returns nothing: each way through it needs a return, as the first one has."
    )


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _takes_wrongly(take: Bucket) -> str:
    allowed, tokens = take(5.0, 0)
    if not allowed:
        return "With 5 tokens in the bucket a retry is allowed; your function refuses it."
    if tokens == 5.0:
        return "A retry was allowed and cost nothing: it takes a token out of the bucket."
    if not math.isclose(tokens, 4.0):
        return f"A retry takes one token, a whole one; your bucket goes from 5 to {tokens:g}."
    allowed, tokens = take(0.0, 0)
    if allowed:
        return "The bucket is empty, nothing was earned, and your function allows the retry: then nothing is limited."
    if tokens < 0:
        return f"A refused retry is not sent, so it costs nothing; your bucket goes down to {tokens:g}."
    allowed, tokens = take(0.5, 0)
    return "Half a token is not enough: a retry needs a whole one." if allowed else ""


def _earns_wrongly(take: Bucket, ratio: float, burst: float) -> str:
    """Return a hint unless requests earn ``ratio`` tokens each before the decision, and at most ``burst`` are kept."""
    new = round(2 / ratio)
    allowed, tokens = take(0.0, new)
    if math.isclose(tokens, new - 1):
        return f"Each new request earns a whole token: then every one of them pays for a retry. It earns {ratio:g}."
    if not allowed and math.isclose(tokens, new * ratio):
        return "The requests have earned enough, but only after the decision: add first, then decide."
    if not allowed:
        return f"{new} new requests came, and your function refuses a retry: what the requests earn is missing."
    if not math.isclose(tokens, new * ratio - 1):
        return (
            f"A request earns {ratio:g} of a token: an empty bucket and {new} new requests make {new * ratio:g}, and "
            f"after one retry your bucket holds {tokens:g}."
        )
    allowed, tokens = take(0.5, 1)
    if not math.isclose(tokens, 0.5 + ratio):
        return (
            "A retry that is refused costs nothing, and what the requests earned stays: half a token and one new "
            f"request leave {tokens:g} in your bucket."
        )
    allowed, tokens = take(burst, 100 * new)
    if tokens > burst:
        return f"After a long calm {tokens:,.0f} tokens are saved, enough for a storm of retries. Keep at most burst."
    if math.isclose(tokens, burst):
        return "A full bucket stays full although a token was taken: cut at burst before the retry takes its token."
    return ""


def _differs(take: Bucket, ratio: float, burst: float) -> str:
    """Compare with the rule over a long outage in which each request asks for three retries."""
    own, right, allowed = burst, burst, [0, 0]
    for _ in range(500):
        for new in (1, 0, 0):
            is_allowed, own = take(own, new)
            right = min(burst, right + ratio * new)
            allowed[0] += bool(is_allowed)
            allowed[1] += right >= 1
            right -= right >= 1
    if abs(allowed[0] - allowed[1]) <= 1:  # a sum of tenths may miss 1 by a rounding
        return ""
    return f"In an outage of 500 requests your bucket allows {allowed[0]} retries; the rule allows another number."


@exercise(
    "06.deadline",
    "The job must be done, and its client must have asked once more, before the client gives up.",
    "The time-out less the work of some jobs and one poll; anything between that and a usual wait is right.",
)
def _deadline(answer: object, *, timeout_s: float, rest_s: float) -> str:
    value = finite(answer)
    if isinstance(value, str):
        return value
    if value <= 0:
        return "A deadline is a time, more than 0 seconds: with 0 or less no job at all would be started."
    if value > timeout_s:
        return "Later than the client waits: the worker would still start jobs whose clients have given up."
    if value > timeout_s - rest_s:
        return (
            f"A job that starts at the last moment is done too late: after its start it takes up to {rest_s:g} s until "
            "the client has the result."
        )
    if value < rest_s:
        return "So tight that jobs expire on an ordinary day: even an idle worker leases a few jobs at a time."
    return ""
