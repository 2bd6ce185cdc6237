"""The history of a run: append-only files of JSON lines, one a process, times by the clock all processes share.

Clients write what they asked for and were told, pollers what they saw, the jobs themselves when they started and when
they had their effect, and whoever injects faults what he did. ``read`` puts it together.
"""

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from overload_demo.worker import JobContext

FILE = "HISTORY_FILE"
Outcome = Literal["ok", "fail", "info"]


class Recorder:
    """Appends events to a file: one ``write`` each, so that what was written before a kill stays."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, **fields: object) -> None:
        """Note an event, now."""
        line = json.dumps({"at": time.monotonic(), "what": what, **fields})
        os.write(self._fd, line.encode() + b"\n")


@dataclass(frozen=True)
class Request:
    """One submission. ``ok``: told it was accepted, as ``job_id``. ``fail``: told it was not. ``info``: who knows."""

    value: int
    invoked_at: float
    ended_at: float
    outcome: Outcome
    job_id: str | None


@dataclass(frozen=True)
class Poll:
    """One answer to a question for a job; ``result`` and ``position`` where it had one."""

    at: float
    job_id: str
    status: str
    position: int | None = None
    result: Any = None


@dataclass(frozen=True)
class Run:
    """One start or one effect of a job."""

    at: float
    job_id: str
    attempt: int
    value: int
    worker: int


@dataclass(frozen=True)
class Fault:
    """Something done to a process or a connection, ``began_at`` to ``ended_at``."""

    what: str
    began_at: float
    ended_at: float


@dataclass(frozen=True)
class Final:
    """What the store holds of a job once everything is quiet."""

    status: str
    result: Any = None


@dataclass
class History:
    """All that was written down. ``finals`` by job id; ``counted`` is what the queue itself says at the end."""

    requests: list[Request] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    starts: list[Run] = field(default_factory=list)
    effects: list[Run] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    finals: dict[str, Final] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)


def read(files: list[Path]) -> History:
    """Put the files of a run together. A torn last line, of a process that was killed while writing, is skipped."""
    events: list[dict[str, Any]] = []
    for file in files:
        if file.exists():
            events += [json.loads(line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    events.sort(key=lambda event: float(event["at"]))
    history, invoked = History(), {}
    faults: dict[str, list[float]] = defaultdict(list)
    for event in events:
        at, what = event.pop("at"), event.pop("what")
        if what == "invoke":
            invoked[event["value"]] = at
        elif what in {"ok", "fail", "info"}:
            since = invoked.pop(event["value"])
            history.requests.append(Request(event["value"], since, at, what, event.get("job_id")))
        elif what == "poll":
            history.polls.append(Poll(at, **event))
        elif what in {"start", "effect"}:
            (history.starts if what == "start" else history.effects).append(Run(at, **event))
        elif what == "fault begins":
            faults[event["name"]].append(at)
        elif what == "fault ends":
            history.faults.append(Fault(event["name"], faults[event["name"]].pop(), at))
    history.faults += [Fault(name, at, float("inf")) for name, begun in faults.items() for at in begun]
    # whoever was never answered may have been heard
    history.requests += [Request(value, at, float("inf"), "info", None) for value, at in invoked.items()]
    return history


def do(payload: dict[str, Any], context: JobContext) -> dict[str, int]:
    """A job for ``WORKER_HANDLER``: notes start and effect, ``message`` seconds apart, and doubles its value."""
    global _recorder
    if _recorder is None:
        _recorder = Recorder(Path(os.environ[FILE]))
    about = {"job_id": context.job_id, "attempt": context.attempt, "value": payload["value"], "worker": os.getpid()}
    _recorder.write("start", **about)
    threading.Event().wait(float(payload["message"]))
    _recorder.write("effect", **about)
    return {"doubled": 2 * payload["value"]}


_recorder: Recorder | None = None
