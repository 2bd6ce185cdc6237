"""The demo job: a plain function, the same for the worker and for the naive baseline.

The job needs one scarce resource, a single slot (for example a payment terminal), for ``delay_s`` seconds. Through one
:class:`Slot`, any number of threads get the same capacity of ``1 / delay_s`` jobs a second. A comparison of two
architectures that use it therefore compares nothing else.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any


class Slot:
    """The scarce resource: one holder at a time. Counts its holds and their total time. Thread-safe."""

    def __init__(self) -> None:
        self._free = threading.Lock()
        self._held_since = 0.0
        self.holds = 0
        self.held_s = 0.0

    def __enter__(self) -> None:
        self._free.acquire()
        self._held_since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.held_s += time.perf_counter() - self._held_since
        self.holds += 1
        self._free.release()

    @property
    def capacity_per_s(self) -> float:
        """Jobs a second that this slot allows: holds ÷ time held; 0.0 before the first hold."""
        return self.holds / self.held_s if self.held_s else 0.0


def utc_now() -> str:
    """Return the wall clock in the stored form: UTC, ISO 8601 with milliseconds and ``Z``."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_to_the_second(seconds)}.{nanoseconds // 1_000_000:03d}Z"


@lru_cache(maxsize=1)  # many jobs end in the same second
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def process(
    payload: Mapping[str, Any], *, delay_s: float, slot: AbstractContextManager[Any] | None = None
) -> dict[str, Any]:
    """Run the demo job: hold ``slot`` for ``delay_s`` seconds, then echo the input with its value doubled.

    ``payload`` has at least ``name`` (str), ``value`` (int or float) and ``message`` (str). An int stays an int: 42
    gives 84. ``processing_duration_ms`` includes the wait for the slot. Raises KeyError or TypeError for any other
    payload.
    """
    started = time.perf_counter()
    name, value, message = payload["name"], payload["value"], payload["message"]
    with slot or nullcontext():
        if delay_s > 0:
            time.sleep(delay_s)
    return {
        "message": f"Demo processing complete for '{name}'",
        "input_echo": {"name": name, "value": value, "message": message, "processed_value": 2 * value},
        "processed_at": utc_now(),
        "processing_duration_ms": round((time.perf_counter() - started) * 1000, 3),
    }
