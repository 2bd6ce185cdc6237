"""The history of a run: append-only files of JSON lines, one a process, times by the monotonic clock.

Clients record requests and responses, pollers the states, jobs their start and their effect, the scenario its faults.
``read`` merges the files.
"""

import json
import os
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overload_demo.lab.history import Fault, History, JobAttempt, Outcome, Poll, Submission


class Recorder:
    """Appends events to a file: one ``write`` each, so that earlier events survive a kill."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, *, at: float | None = None, **fields: object) -> None:
        """Record an event, now or ``at`` another time of the monotonic clock."""
        line = json.dumps({"at": time.monotonic() if at is None else at, "what": what, **fields})
        os.write(self._fd, line.encode() + b"\n")


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
        starts=[JobAttempt(**event) for event in by_kind["start"]],
        effects=[JobAttempt(**event) for event in by_kind["effect"]],
        faults=_faults(by_kind["fault begins"], by_kind["fault ends"]),
    )


def _requests(invoked: list[dict[str, Any]], by_kind: Mapping[str, list[dict[str, Any]]]) -> list[Submission]:
    """Pair each submission with its response; without one the outcome is unknown."""
    outcomes: tuple[Outcome, ...] = ("ok", "fail", "info")
    ended = {event["value"]: (outcome, event) for outcome in outcomes for event in by_kind.get(outcome, [])}
    found = []
    for begun in invoked:
        outcome, end = ended.get(begun["value"], ("info", {}))
        response = end.get("at", float("inf")), outcome, end.get("job_id"), end.get("status")
        found.append(Submission(begun["value"], begun["at"], *response))
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
