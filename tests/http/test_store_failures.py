"""No store, a broken store, a wrong store: clients get a 503 with the outcome of their job, never a 500."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from overload_demo.api.app import create_app
from overload_demo.lab.parts import WorkerThread
from overload_demo.rest import Address
from tests.support import hostile as h
from tests.support.running import JOB, client_of, free_port, make_settings
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

JOB_ID = "job_" + "0" * 32
GOOD_STATS = [0, 0, "", [], 0, 0, "1.0"]

# Possible false results of a script.
UNEXPECTED: list[Any] = [
    None,
    0,
    "",
    "text",
    [],
    {},
    [None],
    [[]],
    [{}],
    ["0"],
    ["0", "+", "+"],
    ["nan", "+"],
    ["inf", "+"],
    ["1e999", "+"],
    ["-inf", "f"],
    ["1e308", "f"],
    [float("inf"), "+"],
    [10**400, "+"],
    ["x", "+"],
    ["0", ""],
    ["0", None],
    ["0", 5],
    ["0", "?"],
    ["0", "=\ud800"],
    ["0", '=job_1"\r\nX-Injected: 1'],
    [0, "0", "0", None, None],
    [0, "nan", "nan", ["queued", 1, "", "", ""]],
    [0, "1e-320", "1e308", ["queued", 1, "", "", ""]],
    [0, "1", "1e308", ["queued", 10**18, "", "", ""]],
    ["x", "0", "0", ["queued", 1, "", "", ""]],
    [0, "0", "0", ["strange", 1, "", "", ""]],
    [0, "0", "0", ["queued", None, "", "", ""]],
    [0, "0", "0", ["queued", 10**400, "", "", ""]],
    [0, "0", "0", ["done", 0, "", "not json", ""]],
    [0, "0", "0", ["done", 0, "", "NaN", ""]],
    [0, "0", "0", ["done", 0, "", "[1e999]", ""]],
    [0, "0", "0", ["done", 0, "", "[" * 50_000, ""]],
    [0, "0", "0", ["done", 0, "", '"\\ud800"', ""]],
    [0, "0", "0", ["processing", 0, None, None, None]],
    [0, "0", "0", ["failed", 0, "", "", "\ud800"]],
    [0, "0", "0", ["queued"]],
    [0, "0", "0", "queued"],
    [*GOOD_STATS, "recent_jobs"],
    [*GOOD_STATS, "recent_jobs", "nan", "recent_busy_s", "inf"],
    [*GOOD_STATS, "recent_jobs", "1e-320", "recent_busy_s", "1e308", "recent_at", "-1e308"],
    [*GOOD_STATS, "done", "1.5"],
    [*GOOD_STATS, "done", "9" * 5000],
    [10**18, 0, "2026-01-01", [], 0, 0, "1e308", "recent_jobs", "1", "recent_busy_s", "1e308"],
    [0, 0, "0001-01-01T00:00:00.000Z", [], 0, 0, "1.0"],
    [0, 0, "9999-12-31T23:59:59.999+00:00", [], 0, 0, "nan"],
    [[], {}, None, "x", None, None, None],
]


@pytest.mark.parametrize("result", UNEXPECTED, ids=lambda value: ascii(value)[:50])
async def test_no_store_reply_makes_a_500(tmp_path: Path, result: Any) -> None:
    settings = make_settings(tmp_path, overload_store_deadline_s=0.2)
    async with h.hostile(h.answer(200, {"result": result})) as server:
        async with client_of(create_app(settings, (server.address, None))) as client:
            answers = [
                await client.post("/jobs", json=JOB),
                await client.get(f"/jobs/{JOB_ID}"),
                await client.get("/queue/stats"),
                await client.get("/health"),
                await client.get("/health/ready"),
            ]

    assert {answer.status_code for answer in answers} <= {200, 202, 404, 429, 503}
    for answer in answers:
        assert "x-injected" not in answer.headers
        json.loads(answer.text, parse_constant=pytest.fail)
        if answer.status_code == 503:
            assert_store_problem(answer)


def assert_store_problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    body: dict[str, Any] = answer.json()
    assert h.TOKEN not in answer.text
    return body


async def answers_over(tmp_path: Path, *scripts: h.Script) -> tuple[httpx.Response, httpx.Response]:
    settings = make_settings(tmp_path, overload_store_deadline_s=1.0)
    async with h.hostile(*scripts) as server:
        async with client_of(create_app(settings, (server.address, None))) as client:
            return await client.post("/jobs", json=JOB), await client.get(f"/jobs/{JOB_ID}")


@pytest.mark.parametrize(
    "script", [h.hang_up, h.reset, h.stay_silent, h.answer(502, b"<html>"), h.answer(200, {"result": "x"})]
)
@pytest.mark.usefixtures("no_repeats")
async def test_an_unknown_outcome_carries_the_job_id_to_poll(tmp_path: Path, script: h.Script) -> None:
    posted, polled = await answers_over(tmp_path, script)

    problem = assert_store_problem(posted)
    assert problem["outcome"] == "unknown"
    assert problem["job_id"].startswith("job_")
    assert "poll the job_id" in problem["detail"]
    assert "job_id" not in assert_store_problem(polled)


@pytest.mark.parametrize(
    "text",
    ["OOM command not allowed", "ERR DB capacity quota exceeded", "LOADING the dataset", "NOPERM no permissions"],
)
@pytest.mark.usefixtures("no_repeats")
async def test_a_definite_refusal_has_the_outcome_not_enqueued(tmp_path: Path, text: str) -> None:
    posted, _ = await answers_over(tmp_path, h.answer(400, {"error": text}))

    problem = assert_store_problem(posted)
    assert problem["outcome"] == "not_enqueued"
    assert "job_id" not in problem


@pytest.mark.usefixtures("no_repeats")
async def test_a_refused_connection_to_the_store_is_not_enqueued(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    nowhere = Address(f"http://127.0.0.1:{free_port()}", SecretStr(h.TOKEN))
    async with client_of(create_app(settings, (nowhere, None))) as client:
        posted, polled, stats = [
            await client.post("/jobs", json=JOB),
            await client.get(f"/jobs/{JOB_ID}"),
            await client.get("/queue/stats"),
        ]
        health, ready = await client.get("/health"), await client.get("/health/ready")

    assert assert_store_problem(posted)["outcome"] == "not_enqueued"
    assert_store_problem(polled)
    assert_store_problem(stats)
    assert_store_problem(ready)
    assert (health.status_code, health.json()["status"], health.json()["queue_connected"]) == (200, "degraded", False)


async def test_the_api_recovers_as_soon_as_the_store_answers(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, overload_store_deadline_s=0.2)
    scripts = [h.answer(502, b"<html>")] * 2 + [h.answer(200, {"result": ["0", "+"]})]
    async with h.hostile(*scripts) as server:
        async with client_of(create_app(settings, (server.address, None))) as client:

            async def accepted() -> bool:
                return (await client.post("/jobs", json=JOB)).status_code == 202

            await wait_until_async("a job is accepted", accepted)


async def test_a_crowd_over_a_silent_store_is_answered_and_bounded(tmp_path: Path) -> None:
    """A hundred requests and a store that never answers: each is a 503, and those never sent are ``not_enqueued``."""
    settings = make_settings(tmp_path, overload_store_deadline_s=0.3)
    async with h.hostile(h.stay_silent) as server:
        async with client_of(create_app(settings, (server.address, None))) as client:
            answers = await asyncio.gather(*(client.post("/jobs", json=JOB) for _ in range(100)))
            health = await client.get("/health")

    outcomes = [assert_store_problem(answer)["outcome"] for answer in answers]
    assert set(outcomes) <= {"unknown", "not_enqueued"}
    assert health.json()["status"] == "degraded"


async def test_no_store_reply_ends_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overload_demo.worker.loop.STORE_RETRY_FIRST_S", 0.0)
    settings = make_settings(tmp_path, overload_store_deadline_s=0.2)
    async with h.hostile(*(h.answer(200, {"result": result}) for result in UNEXPECTED)) as server:
        worker = WorkerThread(settings, (server.address, None))
        worker.start()
        try:
            await wait_until_async("every answer was sent", lambda: has_received(server, len(UNEXPECTED)))
            assert worker.pid is not None
        finally:
            await asyncio.to_thread(worker.stop)


async def has_received(server: h.Hostile, count: int) -> bool:
    return len(server.requests) > count
