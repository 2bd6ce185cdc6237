"""Students of 00."""

from typing import Any

import httpx

from overload_demo.jobs import JobState
from overload_demo.lab.job_log import JobLife
from overload_demo.lab.preflight import Preflight
from tests.notebooks.students import Students

DONE = JobLife(
    job_id="job_1",
    status=JobState.DONE,
    payload={"name": "first", "value": 21, "message": "hello"},
    created_at="2026-11-25T17:00:00.000Z",
)
ANSWER = {"status": "done", "job_id": "job_1", "result": {"input_echo": {"value": 21, "processed_value": 42}}}
STORED, UNKNOWN = {"stored": DONE}, {"stored": None}
QUEUED = {"stored": DONE.model_copy(update={"status": JobState.QUEUED})}


def machine(**limits: int) -> Preflight:
    """A machine with these limits: descriptors, ports, memory_bytes."""
    few: dict[str, Any] = {"descriptors": 20_000, "ports": 25_000, "memory_bytes": 4_000_000_000} | limits
    same = {"python": "3.11.7", "system": "Linux", "cores": 2, "filesystem": "ext4", "store_server": "valkey-server"}
    return Preflight(**same, **few, descriptors_now=256, proxies=(), missing_packages=())


STUDENTS = [
    Students(
        "00.accepted",
        right=["stored", " Stored"],
        wrong=[("done", "comes after the 202"), ("started", "does not wait"), ("received", "written down first")],
        wrong_type=[(202, "one of"), ("202", "one of")],
    ),
    Students(
        "00.first_job",
        facts=STORED,
        right=[ANSWER],
        wrong=[
            ({"status": "accepted", "job_id": "job_1"}, "receipt"),
            ({"status": "queued", "job_id": "job_1"}, "ask again"),
            (ANSWER | {"result": {}}, "its double"),
            (ANSWER | {"result": 42}, "its double"),
        ],
        wrong_type=[
            ("job_1", "hand in the JSON"),
            (httpx.Response(200), ".json()"),
            (httpx.Response(200).json, "parentheses"),
            (42, "a dictionary"),
        ],
    ),
    Students(
        "00.first_job",
        facts=UNKNOWN,
        wrong=[(ANSWER | {"job_id": "job_2"}, "has no job 'job_2'"), ({"detail": "unknown job"}, "an f before it")],
    ),
    Students("00.first_job", facts=QUEUED, wrong=[({"status": "queued", "job_id": "job_1"}, "is queued, not done")]),
    Students(
        "00.limit",
        facts={"report": machine()},
        right=["descriptors", "Descriptors "],
        wrong=[("ports", "25,000 connections"), ("memory", "25 KB"), ("cores", "use no core")],
        wrong_type=[(256, "one of"), (["descriptors"], "one of")],
    ),
    Students(
        "00.limit",
        facts={"report": machine(descriptors=65_536)},
        right=["ports"],
        wrong=[("descriptors", "for 62,260 sockets"), ("memory", "25 KB"), ("cores", "use no core")],
    ),
    Students(
        "00.limit",
        facts={"report": machine(memory_bytes=100_000_000)},
        right=["Memory"],
        wrong=[("descriptors", "for 19,000 sockets"), ("ports", "25,000 connections"), ("cores", "use no core")],
    ),
]
