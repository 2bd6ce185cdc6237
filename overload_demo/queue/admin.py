"""What a person does to a queue: look after its dead letters, pause it, let it go on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.queue.protocol import MAX_DEAD_ENTRIES, PURGE, REQUEUE, Protocol, malformed, pages
from overload_demo.rest.client import Upstash

PAGE = 500
REMOVE_PAGE = 1_000
REQUEUE_PAGE = 100  # each may be looked for in the whole dead list


@dataclass(frozen=True)
class DeadLetter:
    """One entry of the dead list; ``entry`` is its text in the store. An entry that cannot be read names no job."""

    job_id: str
    reason: str
    at: str
    entry: str


class Admin:
    """Every call may be repeated harmlessly. Raises :class:`StoreError` where the store does not answer."""

    def __init__(self, upstash: Upstash, settings: Settings) -> None:
        self._upstash, self._protocol = upstash, Protocol(settings.overload_key_prefix)
        self._ttl_s = settings.queue_result_ttl

    async def dead_letters(self, limit: int = MAX_DEAD_ENTRIES) -> list[DeadLetter]:
        """The dead list, oldest first, at most ``limit`` entries; read in pages."""
        found: list[DeadLetter] = []
        while len(found) < limit:
            last = min(len(found) + PAGE, limit) - 1
            key = self._protocol.key("dead")
            page = await self._upstash.command("LRANGE", key, len(found), last, repeatable=True)
            if not page:
                break
            found += [_dead_letter(str(entry)) for entry in page]
        return found

    async def job(self, job_id: str) -> dict[str, str]:
        """All that the store holds of a job; empty if there is none."""
        flat = await self._upstash.command("HGETALL", f"{self._protocol.prefix}job:{job_id}", repeatable=True)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def requeue(self, letters: Sequence[DeadLetter]) -> list[str]:
        """Let dead jobs wait again, at the tail and with all their attempts.

        Returns ``"queued"`` for each, or why it was left as it was: ``"no payload"`` (there is nothing to run),
        ``"not dead"`` (its entry is gone), ``"unknown"``, or the state it is in.
        """
        verdicts: list[str] = []
        for page in pages(letters, REQUEUE_PAGE):
            pairs = [text for letter in page for text in (letter.job_id, letter.entry)]
            reply = await self._upstash.run(self._protocol.call(REQUEUE, self._protocol.prefix, *pairs))
            if not isinstance(reply, list) or len(reply) != len(page):
                raise malformed(REQUEUE, ValueError())
            verdicts += map(str, reply)
        return verdicts

    async def purge(self, letters: Sequence[DeadLetter]) -> None:
        """Take entries off the dead list; their jobs are kept ``QUEUE_RESULT_TTL`` seconds from now."""
        for page in pages(letters, PAGE):
            pairs = [text for letter in page for text in (letter.job_id, letter.entry)]
            await self._upstash.run(self._protocol.call(PURGE, self._protocol.prefix, self._ttl_s, *pairs))

    async def pause(self) -> None:
        """Hand nothing to workers from now on; what is running is finished, and jobs are still accepted."""
        await self._upstash.command("HSET", self._protocol.key("stats"), "paused", "1", repeatable=True)

    async def resume(self) -> None:
        """Hand out jobs again; workers notice at their next poll."""
        await self._upstash.command("HDEL", self._protocol.key("stats"), "paused", repeatable=True)


def _dead_letter(entry: str) -> DeadLetter:
    try:
        told: Any = json.loads(entry)
        return DeadLetter(str(told["job_id"]), str(told["reason"]), str(told["at"]), entry)
    except (ValueError, LookupError, TypeError, RecursionError):
        return DeadLetter("", "unreadable entry", "", entry)


async def remove_all(upstash: Upstash, prefix: str) -> None:
    """Remove every key behind a prefix, and none beside; keys that others are adding meanwhile may stay.

    Raises :class:`ConfigurationError` without a prefix, which would be everybody's data, and :class:`StoreError`.
    """
    if not prefix:
        raise ConfigurationError("without a key prefix all data of the database would be removed")
    cursor = "0"
    while True:
        scan = ("SCAN", cursor, "MATCH", Protocol(prefix).pattern(), "COUNT", REMOVE_PAGE)
        cursor, keys = await upstash.command(*scan, repeatable=True)
        if keys:
            await upstash.command("UNLINK", *keys, repeatable=True)
        if str(cursor) == "0":
            return
