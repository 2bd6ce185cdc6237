"""``DELETE /jobs/{job_id}``: a waiting job is cancelled, any other is unchanged, and the response has the state."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from overload_demo.api.app import create_app
from overload_demo.config import Settings
from overload_demo.store.connect import Store
from tests.http.test_jobs_contract import assert_problem
from tests.support import hostile as h
from tests.support.running import JOB, client_of, make_settings, serving_api, submit, wait_for, working


@pytest.fixture
def client(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    with serving_api(settings, store) as one:
        yield one


def test_a_waiting_job_is_cancelled_and_stays_so(settings: Settings, store: Store, client: httpx.Client) -> None:
    first, second = submit(client, 2)
    expected = {"status": "cancelled", "job_id": first}

    for _ in range(2):
        answer = client.delete(f"/jobs/{first}")
        assert (answer.status_code, answer.json()) == (200, expected)
    with working(settings, store):
        wait_for(client, [second])

    polled = client.get(f"/jobs/{first}")
    assert (polled.status_code, polled.json()) == (200, expected)
    assert "retry-after" not in polled.headers
    stats = client.get("/queue/stats").json()
    assert (stats["accepted"], stats["done"], stats["cancelled"], stats["queue_length"]) == (2, 1, 1, 0)
    assert client.delete(f"/jobs/{first}").json() == expected


def test_cancelling_a_running_or_finished_job_is_a_409(tmp_path: Path, store: Store) -> None:
    gate = tmp_path / "gate"
    settings = make_settings(tmp_path, worker_handler="tests.support.handlers:wait_for_file")
    with serving_api(settings, store) as client, working(settings, store):
        [job_id] = submit(client, message=str(gate))
        wait_for(client, [job_id], "processing")
        assert "processing" in assert_problem(client.delete(f"/jobs/{job_id}"), 409)["detail"]
        gate.touch()
        wait_for(client, [job_id])
        assert "done" in assert_problem(client.delete(f"/jobs/{job_id}"), 409)["detail"]


@pytest.mark.parametrize("job_id", ["job_" + "0" * 32, "job_", "x", "..%2f..", "%00"])
def test_an_unknown_job_is_404(client: httpx.Client, job_id: str) -> None:
    assert_problem(client.delete(f"/jobs/{job_id}"), 404)


def test_an_idempotency_key_still_leads_to_the_cancelled_job(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    job_id = client.post("/jobs", json=JOB, headers=headers).json()["job_id"]
    client.delete(f"/jobs/{job_id}")

    assert client.post("/jobs", json=JOB, headers=headers).json()["job_id"] == job_id


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (h.stay_silent, "unknown"),
        (h.answer(502, b"<html>"), "unknown"),
        (h.answer(400, {"error": "LOADING the dataset"}), "not_enqueued"),
        *[(h.answer(200, {"result": result}), "unknown") for result in (None, 5, "text", [], [5], [None, None], {})],
    ],
)
@pytest.mark.usefixtures("no_repeats")
async def test_a_failing_store_is_a_503_with_the_outcome(tmp_path: Path, script: h.Script, outcome: str) -> None:
    settings = make_settings(tmp_path, overload_store_deadline_s=1.0)
    async with h.hostile(script) as server:
        async with client_of(create_app(settings, (server.address, None))) as client:
            answer = await client.delete("/jobs/job_" + "0" * 32)

    assert assert_problem(answer, 503)["outcome"] == outcome
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.anyio
async def test_an_unknown_state_is_a_409(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with h.hostile(h.answer(200, {"result": ["unexpected"]})) as server:
        async with client_of(create_app(settings, (server.address, None))) as client:
            assert_problem(await client.delete("/jobs/job_" + "0" * 32), 409)


def test_an_expired_job_is_reported_as_expired(settings: Settings, store: Store, client: httpx.Client) -> None:
    late, good = submit(client, expires_in_s=0.001)[0], submit(client)[0]
    with working(settings, store):
        wait_for(client, [good])

    body = client.get(f"/jobs/{late}").json()
    assert body == {"status": "failed", "job_id": late, "error": "expired: not started within 0.001 s"}
    stats = client.get("/queue/stats").json()
    assert (stats["expired"], stats["failed"], stats["dead"], stats["dead_letters"]) == (1, 1, 0, 0)
