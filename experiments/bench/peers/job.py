"""The job of every library, this package included: it records only when it was done."""

import functools
import os
import struct
import time
from typing import Any

STAMP = struct.Struct("=q")  # nanoseconds of a clock that all processes share
HOLD, HELD_S = "hold", 60.0  # the message of a job that is to be found running


def do_job(payload: dict[str, Any]) -> None:
    """Append the time to the file ``PEERS_DONE``; one short write to an O_APPEND file is never torn or lost."""
    os.write(_done(), STAMP.pack(time.monotonic_ns()))
    if payload["message"] == HOLD:
        time.sleep(HELD_S)


async def do_job_async(payload: dict[str, Any]) -> None:
    """Do the job, for a library that wants a coroutine."""
    do_job(payload)


@functools.cache
def _done() -> int:
    return os.open(os.environ["PEERS_DONE"], os.O_WRONLY | os.O_APPEND)
