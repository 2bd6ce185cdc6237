"""Response times of the last moment, in bins that several load processes can add up while a load is under way.

For a live view only: a bin is 12 % wide. Results are computed from the raw arrays.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Mapping

LOWEST_S = 1e-4
BINS_PER_DECADE = 20
WINDOW_S = 1.0


def bin_of(seconds: float) -> int:
    """The bin a response time belongs to; everything below 0.1 ms is in the first one."""
    return max(0, int(math.log10(max(seconds, LOWEST_S) / LOWEST_S) * BINS_PER_DECADE))


class RecentTimes:
    """The bins of all processes over the last second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Counter[int]]] = deque()

    def add(self, counts: Mapping[str, int]) -> None:
        """What one process has counted since it last told: how many answers by bin."""
        self._seen.append((time.monotonic(), Counter({int(number): count for number, count in counts.items()})))

    def p99_s(self) -> float | None:
        """99 % of the answers of the last second took no longer than this; None without an answer."""
        since = time.monotonic() - WINDOW_S
        while self._seen and self._seen[0][0] < since:
            self._seen.popleft()
        counts = sum((counted for _, counted in self._seen), Counter[int]())
        so_far, wanted = 0, 0.99 * counts.total()
        for number in sorted(counts):
            so_far += counts[number]
            if so_far >= wanted:
                return float(LOWEST_S * 10 ** ((number + 1) / BINS_PER_DECADE))
        return None
