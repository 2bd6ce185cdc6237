"""One moment of a live view."""

from dataclasses import dataclass
from typing import Literal

Track = Literal["queue", "naive"]
TRACKS: tuple[Track, ...] = ("queue", "naive")


@dataclass(frozen=True)
class LiveSample:
    """The numbers of one moment. Of the naive API, which has no queue, depth is requests in flight.

    ``at_s`` counts from the start of the spike, or of the watching where there is none. ``accepted``, ``errors`` and
    ``settled`` are totals. Rates are over the last second, of the naive API over the last ten.
    None is what nobody knows: ``acceptance_p99_s`` without an answer in the last second, ``errors`` where no client is
    ours, ``lost`` before every id was reconciled.
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
