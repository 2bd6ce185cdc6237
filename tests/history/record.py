"""The history of a run: append-only files of JSON lines, one a process, times by the monotonic clock.

Clients record requests and responses, pollers the states, jobs their start and their effect, the scenario its faults.
``read`` merges the files.
"""

import json
import os
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["ok", "fail", "info"]


class Recorder:
    """Appends events to a file: one ``write`` each, so that earlier events survive a kill."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, *, at: float | None = None, **fields: object) -> None:
        """Record an event, now or ``at`` another time of the monotonic clock."""
        line = json.dumps({"at": time.monotonic() if at is None else at, "what": what, **fields})
        os.write(self._fd, line.encode() + b"\n")


@dataclass(frozen=True)
class Request:
    """One submission. ``ok``: accepted, as ``job_id``. ``fail``: refused. ``info``: outcome unknown.

    ``status`` is that of the response, None without one.
    """

    value: int
    invoked_at: float
    ended_at: float
    outcome: Outcome
    job_id: str | None
    status: int | None = None


@dataclass(frozen=True)
class Poll:
    """One response to a poll of a job; ``result`` and ``position`` if present."""

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
    """A fault of a process or a connection, from ``began_at`` to ``ended_at``."""

    what: str
    began_at: float
    ended_at: float


@dataclass(frozen=True)
class Final:
    """The state of a job in the store after everything has drained."""

    status: str
    result: Any = None


@dataclass
class History:
    """All recorded events. ``finals`` by job id; ``counted`` are the queue's own counters at the end."""

    requests: list[Request] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    refused_polls: list[int] = field(default_factory=list)  # their statuses
    starts: list[Run] = field(default_factory=list)
    effects: list[Run] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    finals: dict[str, Final] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)


def read(files: list[Path]) -> History:
    """Merge the files of a run. A torn last line, of a process killed while writing, is skipped."""
    events: list[dict[str, Any]] = []
    for file in files:
        if file.exists():
            events += [json.loads(line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    events.sort(key=lambda event: float(event["at"]))
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        by_kind[event["what"]].append({name: value for name, value in event.items() if name != "what"})
    return History(
        requests=_requests(by_kind["invoke"], by_kind),
        polls=[Poll(**event) for event in by_kind["poll"]],
        refused_polls=[event["status"] for event in by_kind["no answer"]],
        starts=[Run(**event) for event in by_kind["start"]],
        effects=[Run(**event) for event in by_kind["effect"]],
        faults=_faults(by_kind["fault begins"], by_kind["fault ends"]),
    )


def _requests(invoked: list[dict[str, Any]], by_kind: Mapping[str, list[dict[str, Any]]]) -> list[Request]:
    """Pair each submission with its response; without one the outcome is unknown."""
    outcomes: tuple[Outcome, ...] = ("ok", "fail", "info")
    ended = {event["value"]: (outcome, event) for outcome in outcomes for event in by_kind.get(outcome, [])}
    found = []
    for begun in invoked:
        outcome, end = ended.get(begun["value"], ("info", {}))
        response = end.get("at", float("inf")), outcome, end.get("job_id"), end.get("status")
        found.append(Request(begun["value"], begun["at"], *response))
    return found


def _faults(begun: list[dict[str, Any]], ended: list[dict[str, Any]]) -> list[Fault]:
    """Pair beginnings and ends of faults, in order for each name; a fault may have no end."""
    ends: dict[str, deque[float]] = defaultdict(deque)
    for event in ended:
        ends[event["name"]].append(event["at"])
    return [
        Fault(event["name"], event["at"], ends[event["name"]].popleft() if ends[event["name"]] else float("inf"))
        for event in begun
    ]
