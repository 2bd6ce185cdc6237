"""A handler for ``WORKER_HANDLER`` that records starts and effects, and a worker that can end itself."""

import contextlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from overload_demo.worker import JobContext
from overload_demo.worker.lease_renewer import LeaseRenewer
from tests.history.record import Recorder

FILE = "HISTORY_FILE"
EXITS = "HISTORY_EXITS"  # "after_lease", "after_start" or "after_effect", and how often: "after_start 0.01"
POISON = "poison"  # a job of this name ends its worker

_recorder: Recorder | None = None
_moment, _, _share = os.environ.get(EXITS, "never").partition(" ")


def do(payload: dict[str, Any], context: JobContext) -> dict[str, int]:
    """Record start and effect, ``message`` seconds apart, and double the value."""
    global _recorder
    if _recorder is None:
        _recorder = Recorder(Path(os.environ[FILE]))
    about = {"job_id": context.job_id, "attempt": context.attempt, "value": payload["value"], "worker": os.getpid()}
    _recorder.write("start", **about)
    if payload["name"] == POISON:
        _end()
    _perhaps_end("after_start")
    with contextlib.suppress(ValueError):  # the crowd's message is a text
        threading.Event().wait(float(payload["message"]))
    _recorder.write("effect", **about)
    _perhaps_end("after_effect")
    return {"doubled": 2 * payload["value"]}


def _perhaps_end(moment: str) -> None:
    if moment == _moment and random.random() < float(_share):
        _end()


def _end() -> NoReturn:
    """End like ``kill -9``: nothing is logged, settled or released."""
    os._exit(139)


def _ending_after(fetch: Callable[[LeaseRenewer], Any]) -> Callable[[LeaseRenewer], Any]:
    def fetch_and_perhaps_end(renewer: LeaseRenewer) -> Any:
        lease = fetch(renewer)
        if lease.jobs:
            _perhaps_end("after_lease")
        return lease

    return fetch_and_perhaps_end


if _moment == "after_lease":
    setattr(LeaseRenewer, "fetch", _ending_after(LeaseRenewer.fetch))  # noqa: B010 - a type checker sees another function
