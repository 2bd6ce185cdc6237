"""Answers to the exercises of 00."""

from typing import Any

import httpx

from overload_demo.jobs import JobState
from overload_demo.lab.job_log import JobLife
from overload_demo.lab.preflight import Preflight

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


BY_DESCRIPTORS, BY_PORTS = {"report": machine()}, {"report": machine(descriptors=65_536)}
BY_MEMORY = {"report": machine(memory_bytes=100_000_000)}

WRONG: list[tuple[str, Any, dict[str, Any], str]] = [
    ("00.first_job", "job_1", STORED, "hand in the JSON"),
    ("00.first_job", httpx.Response(200), STORED, ".json()"),
    ("00.first_job", httpx.Response(200).json, STORED, "parentheses"),
    ("00.first_job", 42, STORED, "a dictionary"),
    ("00.first_job", {"status": "accepted", "job_id": "job_1"}, STORED, "receipt"),
    ("00.first_job", ANSWER | {"job_id": "job_2"}, UNKNOWN, "has no job 'job_2'"),
    ("00.first_job", {"detail": "unknown job"}, UNKNOWN, "has no job"),
    ("00.first_job", {"status": "queued", "job_id": "job_1"}, STORED, "ask again"),
    ("00.first_job", {"status": "queued", "job_id": "job_1"}, QUEUED, "not done"),
    ("00.first_job", ANSWER | {"result": {}}, STORED, "its double"),
    ("00.first_job", ANSWER | {"result": 42}, STORED, "its double"),
    ("00.limit", "ports", BY_DESCRIPTORS, "25,000 connections"),
    ("00.limit", "memory", BY_DESCRIPTORS, "25 KB"),
    ("00.limit", "cores", BY_DESCRIPTORS, "use no core"),
    ("00.limit", "descriptors", BY_PORTS, "Another limit"),
    ("00.limit", 256, BY_DESCRIPTORS, "one of"),
    ("00.accepted", "done", {}, "comes after the 202"),
    ("00.accepted", "started", {}, "does not wait"),
    ("00.accepted", "received", {}, "written down first"),
    ("00.accepted", "202", {}, "one of"),
]
RIGHT: list[tuple[str, Any, dict[str, Any]]] = [
    ("00.first_job", ANSWER, STORED),
    ("00.limit", "descriptors", BY_DESCRIPTORS),
    ("00.limit", "ports", BY_PORTS),
    ("00.limit", "Memory", BY_MEMORY),
    ("00.accepted", "stored", {}),
]
