"""An API that somebody else has started, watched from outside: what it tells of its queue, five times a second."""

import asyncio
import http.client
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.lab.json_connection import JsonConnection
from overload_demo.live.api_counts import ApiCounts
from overload_demo.live.feed import EVERY_S, RATE_OVER_S, Feed
from overload_demo.live.sample import LiveSample

SERVICE = "overload-safe-queue-api"
ANSWER_WITHIN_S = 5.0
_NO_ANSWER = (OSError, http.client.HTTPException, ValueError)


class ApiWatch:
    """Samples of the API at ``url`` for a feed. An API that goes away leaves a mark, and is asked again.

    An API that asks for a key gets the one in OVERLOAD_API_KEY. Errors and acceptance times are those the API counts
    itself, once a second: what never reached it is not among them.
    """

    def __init__(self, url: str, feed: Feed) -> None:
        if not _is_url(url):
            raise ConfigurationError(
                f"{url!r} is not the URL of an API: it begins with http:// or https://, and a host follows"
            )
        key = load_settings().overload_api_key
        headers = {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}
        self._url, self._feed = url, feed
        self._connection = JsonConnection(url, ANSWER_WITHIN_S, headers)
        self._counts: ApiCounts | None = None
        self._counted_at = -RATE_OVER_S
        self._p99_s: float | None = None

    async def check(self) -> None:
        """Raise :class:`ConfigurationError` with one line unless it is an API of ours."""
        try:
            health = await asyncio.to_thread(self._connection.get, "/health")
        except OSError as error:
            reason = error.strerror or "no answer in time"
            raise ConfigurationError(f"nothing to watch at {self._url}: {reason}") from None
        except (http.client.HTTPException, ValueError):
            health = {}
        if health.get("service") != SERVICE:
            raise ConfigurationError(f"what answers at {self._url} is not this project's API")

    async def run(self) -> None:
        """Watch until cancelled."""
        answers = True
        while True:
            due = time.monotonic() + EVERY_S
            try:
                self._feed.add(await asyncio.to_thread(self._look))
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

    def _look(self) -> LiveSample:
        """The queue's numbers now, and the API's own of the last second. Blocks."""
        stats = self._connection.get("/queue/stats")
        if time.monotonic() - self._counted_at >= RATE_OVER_S:
            self._counted_at = time.monotonic()
            counts = ApiCounts.read(self._connection.get_text("/metrics"))
            self._p99_s = None if self._counts is None else counts.p99_s(self._counts)
            self._counts = counts
        errors = None if self._counts is None else self._counts.errors
        return replace(_sample(stats, self._feed.elapsed_s), errors=errors, acceptance_p99_s=self._p99_s)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _sample(stats: dict[str, Any], at_s: float) -> LiveSample:
    """Raises ValueError when these are not the numbers of a queue."""
    try:
        return LiveSample(
            track="queue",
            at_s=round(at_s, 3),
            accepted=int(stats["accepted"]),
            errors=None,
            queue_depth=int(stats["queue_length"]),
            oldest_age_s=float(stats["oldest_age_s"]),
            settled=int(stats["done"]) + int(stats["failed"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the numbers of a queue: {error}") from None
