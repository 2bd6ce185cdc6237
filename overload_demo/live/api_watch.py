"""Watch an API from outside: its queue's numbers five times a second, and its own metrics once a second."""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live
from rich.table import Table

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.lab.parts import JsonConnection
from overload_demo.live.feed import EVERY_S, RATE_OVER_S, Feed
from overload_demo.live.samples import NOT_KNOWN, NUMBERS, LiveSample

SERVICE = "overload-safe-queue-api"
ANSWER_WITHIN_S = 5.0
FIRST_ERROR = 429  # answers below it report a mistake of the client


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
            except (OSError, ValueError):
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
        errors = None if self._counts is None else self._counts.errors
        return replace(_queue_sample(stats, self._feed.elapsed_s), errors=errors, acceptance_p99_s=self._p99_s)

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


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:  # the port is not a number
        return False


def _queue_sample(stats: dict[str, Any], at_s: float) -> LiveSample:
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
