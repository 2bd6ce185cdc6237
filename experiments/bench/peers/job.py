"""The job of every library, this package included: it records only when it was done."""

import functools
import os
import struct
import time
from typing import Any

STAMP = struct.Struct("=q")  # nanoseconds of a clock that all processes share


def do_job(_payload: dict[str, Any]) -> None:
    """Append the time to the file ``PEERS_DONE``; one short write to an O_APPEND file is never torn or lost."""
    os.write(_done(), STAMP.pack(time.monotonic_ns()))


@functools.cache
def _done() -> int:
    return os.open(os.environ["PEERS_DONE"], os.O_WRONLY | os.O_APPEND)
