"""A spike's reports as samples of a feed: the same for ``spike --live``, the stage and a notebook."""

from overload_demo.lab.result import SpikeResult
from overload_demo.lab.spike_plan import SpikeProgress
from overload_demo.live.feed import Feed
from overload_demo.live.sample import LiveSample, Track
from overload_demo.live.samples import absorbed

_WORDS = {
    "calibrate": "calibrating: how much does this machine take?",
    "fire": "firing: {sent:,} of {offered:,} requests sent",
    "drain": "all sent; the queue drains",
    "reconcile": "reconciling every accepted id",
    "over": "over",
    "baseline": "the same load on the naive API: {sent:,} of {offered:,} sent",
}


class Follower:
    """Call it with each report of a spike, or of one after the other; a clock that starts again begins a track anew."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._track: Track | None = None
        self._last_s = 0.0

    def __call__(self, progress: SpikeProgress) -> None:
        """Take one report."""
        self._feed.show(status=_WORDS[progress.stage].format(sent=progress.sent, offered=progress.offered))
        if progress.elapsed_s is None:
            return
        track: Track = "naive" if progress.stage == "baseline" else "queue"
        if track != self._track or progress.elapsed_s < self._last_s:
            self._feed.begin(track, elapsed_s=progress.elapsed_s)
            self._feed.mark("spike starts", 0.0)
        self._track, self._last_s = track, progress.elapsed_s
        self._feed.add(
            LiveSample(
                track=track,
                at_s=round(progress.elapsed_s, 3),
                accepted=progress.accepted,
                errors=progress.errors,
                queue_depth=progress.queue_depth,
                oldest_age_s=progress.oldest_age_s,
                settled=progress.settled,
                acceptance_p99_s=progress.acceptance_p99_s,
                lost=progress.lost,
            )
        )

    def end(self, result: SpikeResult) -> None:
        """Show what it came to, and how far off the predictions on the feed were."""
        told = self._feed.state
        self._feed.show(result=absorbed(result, told["peak"], told["empty_s"]), status="over")
