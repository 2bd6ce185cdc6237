"""What the naive app says of itself: requests it holds, jobs it has completed, what its slot allows."""

import asyncio
import contextlib
import http.client
from dataclasses import dataclass
from datetime import UTC, datetime

from overload_demo.lab.json_connection import JsonConnection

SAMPLE_EVERY_S = 0.2
SAMPLE_WITHIN_S = 10.0


@dataclass(frozen=True)
class AppSample:
    """What the app said about itself, and when; ``in_flight`` and ``completed`` count clients that have left too."""

    at: datetime
    in_flight: int
    completed: int
    slot_capacity_per_s: float | None


class AppMonitor:
    """Asks the app for its stats over one kept connection. An app with a blocked event loop answers late."""

    def __init__(self, url: str) -> None:
        self._connection = JsonConnection(url, SAMPLE_WITHIN_S)
        self.samples: list[AppSample] = []

    async def sample_for_ever(self) -> None:
        """Add a sample five times a second, until cancelled."""
        while True:
            await self.sample()
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def sample(self) -> None:
        """Add a sample; none when there is no answer in time."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            stats = await asyncio.to_thread(self._connection.get, "/stats")
            at = datetime.now(UTC)
            self.samples.append(AppSample(at, stats["in_flight"], stats["completed"], stats["slot_capacity_per_s"]))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
