"""What users may write as WORKER_HANDLER; each takes its orders from the payload's ``message``."""

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

from overload_demo.worker import JobContext


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


RAISED = {
    "an ordinary error": ValueError("no"),
    "an error with a lone surrogate": ValueError("caf\udce9"),
    "an error without a text": UnspeakableError(),
    "an endless error": ValueError("x" * 10_000_000),
    "a cancellation": asyncio.CancelledError(),
    "an exit": SystemExit(3),
    "an interrupt": KeyboardInterrupt(),
    "an end of a generator": GeneratorExit(),
}
RETURNED: dict[str, Any] = {
    "an object that is no JSON": object(),
    "a NaN": float("nan"),
    "bytes": b"x",
    "a result beyond all bounds": "x" * 20_000_000,
    "a dict with odd keys": {(1, 2): 3},
}


def misbehave(payload: dict[str, Any]) -> Any:
    message = payload["message"]
    if message in RAISED:
        raise RAISED[message]
    if message == "recursion":
        return misbehave(payload)
    return RETURNED.get(message, {"fine": True})


async def asynchronous(payload: dict[str, Any], context: JobContext) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"value": payload["value"], "job_id": context.job_id, "attempt": context.attempt}


def large(payload: dict[str, Any]) -> str:
    return "x" * 400_000


def wait_for_file(payload: dict[str, Any]) -> str:
    """A message that names a file waits until it is there; anything else is done at once."""
    path = Path(payload["message"])
    gate = threading.Event()
    while path.is_absolute() and not path.exists():
        gate.wait(0.01)
    return "done"


def die(payload: dict[str, Any]) -> None:
    os._exit(139)


def hog_the_interpreter(payload: dict[str, Any]) -> int:
    """Pure-Python work without a pause, for ``value`` seconds."""
    rounds, until = 0, time.monotonic() + payload["value"]
    while time.monotonic() < until:
        rounds += 1
    return rounds
